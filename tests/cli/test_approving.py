"""`ivor sign`, `decline`, `approvals`: design 5; SPEC 5.8. Verified by openssl, pdfsig and us."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from client import compose
from client.approvals import approvals as read_approvals
from client.cms import sign_detached
from client.device import Device
from client.mailbox import State
from client.signing_keys import SoftKey, Token
from client.token_keys import token_key
from crypto.certificate import make_key
from node.errors import NetworkError
from protocol.approval import FileSignature, Revision, Version
from protocol.entry import ChatId
from tests.cli.conftest import Official
from tests.federation import Federation, now
from tests.signing import (
    certify,
    make_pdf,
    openssl_accepts,
    pdfsig,
    run,
    tool,
    with_other_text,
)

DAY = 24 * 3600
VERIFIER = str(Path(__file__).parents[2] / "verifiers" / "evidence.mjs")
Forgery = Callable[[FileSignature], FileSignature]


@pytest.fixture
def chat(federation: Federation, anna: Official, boris: Official) -> str:
    made = federation.chat(anna.device, "Orders", boris.device).hex()
    for one in (anna, boris):
        certify(federation, one.device)
    return made


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "order.txt"
    path.write_bytes(b"one\r\ntwo\n")
    return path


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "order.pdf"
    path.write_bytes(make_pdf())
    return path


def asked(federation: Federation, anna: Official, boris: Official, chat: str, path: Path) -> str:
    """Anna signs a file and asks Boris, who gets to know; the request's id."""
    (made,) = anna.json("sign", chat, str(path), "--ask", "boris@mincifry")
    federation.carry(anna.device, boris.device)
    return str(made["request"])


def standings(official: Official, chat: str, code: int = 0) -> dict[object, object]:
    found = official.json("approvals", chat, code=code)
    return {one["name"]: one["standing"] for one in found if one["type"] != "request"}


def ca_of(federation: Federation, agency: str, tmp_path: Path) -> Path:
    """What `ivor node ca` prints."""
    path = tmp_path / f"{agency}.ca.pem"
    path.write_bytes(federation.agencies[agency].ca)
    return path


class TestDetached:
    def test_two_officials_sign_and_openssl_accepts_both(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        request = asked(federation, anna, boris, chat, text)
        assert standings(boris, chat) == {
            "anna@minzdrav": "signed",
            "boris@mincifry": "waiting",
        }
        (made,) = boris.json("sign", chat, str(text), "--request", request[:8])
        assert made["digest"] == sha256(text.read_bytes()).hexdigest()
        federation.carry(boris.device, anna.device)
        for official in (anna, boris):
            (shown, *rest) = official.json("approvals", chat, request)
            assert (shown["complete"], shown["sound"]) == (True, True)
            assert [(one["standing"], one["verified"]) for one in rest] == [("signed", True)] * 2
        for name, agency in (("anna@minzdrav", "minzdrav"), ("boris@mincifry", "mincifry")):
            signature = text.with_name(f"{text.name}.{name}.p7s")
            right = ca_of(federation, agency, text.parent)
            other = ca_of(
                federation, "mincifry" if agency == "minzdrav" else "minzdrav", text.parent
            )
            assert openssl_accepts(signature, text, right)
            assert not openssl_accepts(signature, text, other)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_what_was_signed_stays_if_that_was_told(
        self,
        anna: Official,
        chat: str,
        text: Path,
        monkeypatch: pytest.MonkeyPatch,
        when: str,
    ) -> None:
        """Of a PDF the signed file is nowhere else."""

        async def torn(
            device: Device, _: object, work: Callable[[object], object], done: list[object]
        ) -> None:
            if when == "after":
                with device.transaction():
                    done.append(work([]))
            raise KeyboardInterrupt

        monkeypatch.setattr("cli.opening._change", torn)
        anna("sign", chat, str(text), code=130)
        assert text.with_name(f"{text.name}.anna@minzdrav.p7s").exists() == (when == "after")

    def test_evidence_of_it_names_the_whole_digest(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        """Who gets it has no log, and a few hex digits prove nothing."""
        request = asked(federation, anna, boris, chat, text)
        boris("decline", chat, request, "--reason", "not mine")
        federation.carry(boris.device, anna.device)
        anna("send", chat, "--file", str(text))
        digest = sha256(text.read_bytes()).hexdigest()
        assert anna("read", chat).count(digest[:8]) == 1
        assert digest not in anna("read", chat)
        file = str(text.with_name("evidence"))
        anna("evidence", "export", chat, "-o", file)
        said = [str(one["text"]) for one in anna.json("evidence", "check", file) if "text" in one]
        assert [digest in one for one in said].count(True) == 4
        assert not any("ivor" in one for one in said)
        found = run([tool("node", "nodejs"), VERIFIER, file], check=True).stdout
        assert found.count(f"SHA-256 {digest})") == 4

    def test_signatures_are_exported_from_the_log(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        """Whoever is in the chat can hand over all that a verifier without Ivor needs."""
        text = text.rename(text.with_name("о" * 127))
        request = asked(federation, anna, boris, chat, text)
        folder = text.parent / "out"
        for _ in range(2):
            boris("approvals", chat, request, "--export", str(folder), "--file", str(text))
        (signature,) = folder.glob("*.p7s")
        assert openssl_accepts(signature, text, folder / "minzdrav.pem")

    def test_an_official_declines(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        request = asked(federation, anna, boris, chat, text)
        boris("decline", chat, request, "--reason", "wrong \x1b[2J year")
        federation.carry(boris.device, anna.device)
        shown = anna("approvals", chat)
        assert "refused" in shown
        assert "\x1b" not in shown
        assert standings(anna, chat)["boris@mincifry"] == "refused"
        assert "will not sign" in anna("read", chat)
        boris("decline", chat, request, code=1)
        assert "declined this already" in boris.said

    def test_who_was_not_asked_has_nothing_to_decline(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        text: Path,
        secret: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        clara = Official(federation.official("clara@minzdrav"), secret, capsys)
        chat = federation.chat(anna.device, "Orders", boris.device, clara.device).hex()
        certify(federation, anna.device)
        request = asked(federation, anna, boris, chat, text)
        federation.carry(anna.device, clara.device)
        clara("decline", chat, request, code=1)
        assert "nobody asked you" in clara.said

    def test_what_was_signed_cannot_be_declined_or_signed_again(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        request = asked(federation, anna, boris, chat, text)
        anna("decline", chat, request, code=1)
        anna("sign", chat, str(text), "--request", request, "-o", str(text) + ".x", code=1)
        assert "signed this already" in anna.said

    @pytest.mark.parametrize(
        "answer",
        [
            ("sign", "{chat}", "{file}", "--request", "{request}"),
            ("decline", "{chat}", "{request}"),
        ],
    )
    def test_what_our_other_device_has_signed_meanwhile(
        self,
        answer: tuple[str, ...],
        federation: Federation,
        anna: Official,
        boris: Official,
        text: Path,
        secret: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its signature comes as the command meets the node; a PIN may take long to type."""
        phone = Official(federation.further(boris.device), secret, capsys)
        chat = federation.chat(anna.device, "Orders", boris.device).hex()
        for one in (anna, boris, phone):
            certify(federation, one.device)
        request = asked(federation, anna, boris, chat, text)
        federation.carry(anna.device, phone.device)
        phone("sign", chat, str(text), "--request", request, "-o", f"{text}.phone")

        async def meet(*_: object) -> None:
            federation.carry(phone.device, boris.device)
            raise NetworkError("the line is cut")

        monkeypatch.setattr("cli.opening._change", meet)
        boris(*(one.format(chat=chat, file=text, request=request) for one in answer), code=1)
        assert "signed this already" in boris.said
        assert not list(text.parent.glob("*.boris@mincifry.p7s"))

    def test_another_file_is_refused_with_both_hashes(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        request = asked(federation, anna, boris, chat, text)
        other = text.with_name("other.txt")
        other.write_bytes(b"other")
        boris("sign", chat, str(other), "--request", request, code=7)
        for path in (text, other):
            assert sha256(path.read_bytes()).hexdigest() in boris.said
        boris("approvals", chat, request, "--file", str(other), code=7)
        assert not list(text.parent.glob("other.txt.*"))

    def test_nothing_is_overwritten_and_nothing_then_told(
        self, anna: Official, chat: str, text: Path
    ) -> None:
        taken = text.with_name("order.txt.anna@minzdrav.p7s")
        taken.write_bytes(b"mine")
        anna("sign", chat, str(text), code=1)
        assert "exists already" in anna.said
        assert taken.read_bytes() == b"mine"
        assert anna.json("approvals", chat) == []

    def test_who_is_asked_is_told_to_answer_and_not_to_begin_anew(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        request = asked(federation, anna, boris, chat, text)
        boris("sign", chat, str(text), code=1)
        assert f"--request {request[:8]}" in boris.said

    @pytest.mark.usefixtures("boris")
    def test_bad_calls(self, anna: Official, chat: str, text: Path) -> None:
        name = str(text)
        anna("sign", chat, name, "--ask", "nobody@minzdrav", code=1)
        anna("sign", chat, name, "--ask", "boris@mincifry", "--request", "abcd", code=1)
        anna("sign", chat, name, "--request", "abcd", code=1)
        anna("sign", chat, str(text.with_name("absent")), code=1)
        anna("approvals", chat, "--file", name, code=1)
        empty = text.with_name("empty")
        empty.write_bytes(b"")
        anna("sign", chat, str(empty), code=1)
        assert "empty" in anna.said
        anna("sign", chat, str(text.parent), code=1)
        assert "is a folder" in anna.said
        assert not list(text.parent.glob("*.p7s"))


class TestPdf:
    def test_two_officials_sign_one_after_the_other_and_pdfsig_accepts_both(
        self, federation: Federation, anna: Official, boris: Official, chat: str, pdf: Path
    ) -> None:
        request = asked(federation, anna, boris, chat, pdf)
        first = pdf.with_name("order.anna@minzdrav.pdf")
        (made,) = boris.json("sign", chat, str(first), "--request", request)
        assert made["signed_before"] == ["anna@minzdrav"]
        last = pdf.with_name("order.anna@minzdrav.boris@mincifry.pdf")
        federation.carry(boris.device, anna.device)
        (shown, *rest) = anna.json("approvals", chat, request, "--file", str(last))
        assert (shown["complete"], shown["sound"]) == (True, True)
        hashes = [sha256(path.read_bytes()).hexdigest() for path in (pdf, first, last)]
        assert [(one["made_of"], one["made"]) for one in rest] == [
            (hashes[0], hashes[1]),
            (hashes[1], hashes[2]),
        ]
        for number, agency in enumerate(("minzdrav", "mincifry")):
            ca = ca_of(federation, agency, pdf.parent)
            said = pdfsig(last, ca, pdf.parent / f"nss{number}")
            assert said.count("Signature is Valid.") == 2
            assert said.count("Certificate is Trusted.") == 1
            assert said.count("ETSI.CAdES.detached") == 2

    def test_the_log_alone_verifies_with_openssl_too(
        self, federation: Federation, anna: Official, chat: str, pdf: Path
    ) -> None:
        """The CMS in the log is over the file that was asked for, also where it is a PDF."""
        (made,) = anna.json("sign", chat, str(pdf))
        folder = pdf.parent / "out"
        anna("approvals", chat, str(made["request"]), "--export", str(folder))
        (signature,) = folder.glob("*.p7s")
        assert openssl_accepts(signature, pdf, ca_of(federation, "minzdrav", pdf.parent))

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (make_pdf("secret"), "encrypted"),
            (make_pdf()[:300], "damaged"),
            (b"not a PDF at all", "damaged"),
        ],
    )
    def test_encrypted_or_damaged(
        self, anna: Official, chat: str, pdf: Path, data: bytes, said: str
    ) -> None:
        """A clear answer, nothing told and nothing written; and what does work."""
        pdf.write_bytes(data)
        anna("sign", chat, str(pdf), code=1)
        assert said in anna.said
        assert "--detached" in anna.said
        assert [path.name for path in pdf.parent.glob("order*")] == ["order.pdf"]
        anna("sign", chat, str(pdf), "--detached")
        assert pdf.with_name("order.pdf.anna@minzdrav.p7s").exists()

    def test_signed_before_by_others(
        self, anna: Official, boris: Official, chat: str, pdf: Path
    ) -> None:
        """It is said by whom, and goes on."""
        boris("sign", chat, str(pdf), "-o", str(pdf.with_name("signed.pdf")))
        (made,) = anna.json("sign", chat, str(pdf.with_name("signed.pdf")))
        assert made["signed_before"] == ["boris@mincifry"]
        assert "boris@mincifry" in anna.said

    @pytest.mark.parametrize("how", ["redacted", "closed"])
    def test_who_signed_has_signed_whatever_becomes_of_earlier_signatures(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        chat: str,
        pdf: Path,
        how: str,
    ) -> None:
        request = asked(federation, anna, boris, chat, pdf)
        first = pdf.with_name("order.anna@minzdrav.pdf")
        boris("sign", chat, str(first), "--request", request)
        federation.carry(boris.device, anna.device)
        (_, earlier, _) = anna.json("approvals", chat, request)
        if how == "redacted":
            anna("redact", chat, str(earlier["id"]))
        else:  # as where its author had not heard of this device yet
            entry = bytes.fromhex(str(earlier["id"]))
            anna.device.connection.execute(
                "UPDATE mailbox SET state = ?, plaintext = NULL WHERE id = ?",
                (State.UNREADABLE, entry),
            )
        (shown, later) = anna.json("approvals", chat, request)
        assert (shown["complete"], shown["sound"]) == (True, True)
        assert (later["name"], later["standing"]) == ("boris@mincifry", "signed")
        assert "of its PDF" in str(later["why"])

    def test_changed_after_it_was_signed(
        self, federation: Federation, anna: Official, boris: Official, chat: str, pdf: Path
    ) -> None:
        request = asked(federation, anna, boris, chat, pdf)
        first = pdf.with_name("order.anna@minzdrav.pdf")
        forged = pdf.with_name("forged.pdf")
        forged.write_bytes(with_other_text(first.read_bytes()))
        boris("sign", chat, str(forged), "--request", request, code=7)
        assert "is not the file of the request" in boris.said
        boris("sign", chat, str(forged), code=7)
        assert "changed after anna@minzdrav signed it" in boris.said


class TestForgery:
    """What a member's device may write, and why `approvals` does not count it."""

    def why(
        self, federation: Federation, anna: Official, boris: Official, chat: str, change: Forgery
    ) -> str:
        """Boris's device writes Anna's signature with a change; Anna is told what is wrong."""
        federation.carry(anna.device, boris.device)
        judge = compose.require(boris.device, ChatId(bytes.fromhex(chat)))
        (known,) = read_approvals(boris.device, judge, now())
        (answer,) = known.answers
        assert answer.cms is not None
        good = FileSignature(known.reference, known.document.digest, answer.cms, answer.revision)
        with boris.device.transaction():
            compose.send(boris.device, judge.id, change(good), now(), None)
        federation.carry(boris.device, anna.device)
        found = anna.json("approvals", chat, code=7)
        (bad,) = [one for one in found if one.get("verified") is False]
        assert bad["name"] == "boris@mincifry"
        assert bad["standing"] == "invalid"
        assert standings(anna, chat, code=7)["boris@mincifry"] == "waiting"
        assert found[0]["complete"] is False
        return str(bad["why"])

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda good: good, "CA did not issue"),
            (lambda good: replace(good, digest=bytes(32)), "another file than the request"),
            (lambda good: replace(good, cms=b""), "CMS structure is malformed"),
            (lambda good: replace(good, cms=good.cms[:-1]), "malformed"),
            (lambda good: replace(good, cms=good.cms[:-1] + b"\x00"), "CA did not|key"),
        ],
    )
    def test_somebody_elses_signature(
        self,
        federation: Federation,
        anna: Official,
        boris: Official,
        chat: str,
        text: Path,
        change: Forgery,
        why: str,
    ) -> None:
        anna("sign", chat, str(text), "--ask", "boris@mincifry")
        assert re.search(why, self.why(federation, anna, boris, chat, change))

    def test_a_colleagues_signature(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        """Vera signs; Boris, of the same agency and CA, says that it was he."""
        vera = federation.official("vera@mincifry")
        certify(federation, vera)
        anna("sign", chat, str(text), "--ask", "boris@mincifry")
        cms = self.signed_by(federation, vera, text, time.time())

        def change(good: FileSignature) -> FileSignature:
            return replace(good, cms=cms)

        why = self.why(federation, anna, boris, chat, change)
        assert why == "the certificate is of vera@mincifry, not of its author"

    def test_a_certificate_that_was_over(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        anna("sign", chat, str(text), "--ask", "boris@mincifry")
        cms = self.signed_by(federation, boris.device, text, time.time() - 400 * DAY)

        def change(good: FileSignature) -> FileSignature:
            return replace(good, cms=cms)

        assert "not valid at that time" in self.why(federation, anna, boris, chat, change)

    def test_a_pdf_made_of_another(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        anna("sign", chat, str(text), "--ask", "boris@mincifry")
        cms = self.signed_by(federation, boris.device, text, time.time())
        loose = Revision(Version(b"x" * 32, 5), Version(b"y" * 32, 6))

        federation.carry(anna.device, boris.device)
        judge = compose.require(boris.device, ChatId(bytes.fromhex(chat)))
        (known,) = read_approvals(boris.device, judge, now())
        with boris.device.transaction():
            made = FileSignature(known.reference, known.document.digest, cms, loose)
            compose.send(boris.device, judge.id, made, now(), None)
        federation.carry(boris.device, anna.device)
        (_, _, answer) = anna.json("approvals", chat)
        assert (answer["standing"], answer["made"]) == ("signed", None)
        assert "of its PDF" in str(answer["why"])
        (known,) = read_approvals(anna.device, judge, now())
        assert loose.result not in known.versions()

    def signed_by(self, federation: Federation, device: Device, text: Path, at: float) -> bytes:
        """A CMS signature by a key of a device that was certified at a time."""
        key = SoftKey(make_key())
        der = certify(federation, device, key, at)
        signer = key.signer(der, device.profile.card.ca)
        return sign_detached(signer, sha256(text.read_bytes()).digest(), time.time())

    def test_a_removed_member_signs_no_more(
        self, federation: Federation, anna: Official, boris: Official, chat: str, text: Path
    ) -> None:
        """Boris's device is refused once it knows; what it wrote before it knew is void."""
        request = asked(federation, anna, boris, chat, text)
        anna("chat", "remove", chat, "boris@mincifry")
        boris("sign", chat, str(text), "--request", request)
        federation.carry(boris.device, anna.device)
        found = anna.json("approvals", chat, code=7)
        (bad,) = [one for one in found if one.get("verified") is False]
        assert "removed" in str(bad["why"])
        federation.carry(anna.device, boris.device)
        other = text.with_name("other.txt")
        other.write_bytes(b"other")
        boris("sign", chat, str(other), code=8)
        assert not other.with_name("other.txt.boris@mincifry.p7s").exists()


def test_without_a_certificate_the_node_is_needed(
    federation: Federation, anna: Official, text: Path
) -> None:
    made = federation.chat(anna.device, "Alone").hex()
    anna("sign", made, str(text), code=3)
    assert "no valid certificate yet" in anna.said
    certify(federation, anna.device, at=time.time() - 350 * DAY)
    anna("sign", made, str(text))
    assert "ends within 30 days" in anna.said


class TestToken:
    """PKCS#11, with SoftHSM for a module."""

    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """A module with a token `ivor` and a P-256 key `ivor`, PIN 1234; its path."""
        program = tool("softhsm2-util", "softhsm2")
        found = next(Path("/usr/lib").glob("**/libsofthsm2.so"))
        (tmp_path / "tokens").mkdir()
        settings = tmp_path / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nlog.level = ERROR\n")
        monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
        label = ["--label", "ivor", "--pin", "1234", "--so-pin", "1234"]
        run([program, "--init-token", "--free", *label], check=True)
        pem = tmp_path / "key.pem"
        pem.write_bytes(make_key())
        key = ["--token", "ivor", "--pin", "1234", "--label", "ivor", "--id", "01"]
        run([program, "--import", str(pem), *key], check=True)
        return str(found)

    def test_signs_a_pdf_and_another_file(
        self,
        federation: Federation,
        anna: Official,
        chat: str,
        pdf: Path,
        text: Path,
        module: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        pin = pdf.with_name("pin")
        pin.write_text("1234\n")
        pin.chmod(0o600)
        monkeypatch.setenv("IVOR_PKCS11_MODULE", module)
        monkeypatch.setenv("IVOR_PKCS11_PIN_FILE", str(pin))
        anna("sign", chat, str(text), code=3)
        assert "no valid certificate yet" in anna.said
        with token_key(Token(module, "ivor", "ivor"), "1234") as key:
            certify(federation, anna.device, key)
        anna("sign", chat, str(text))
        anna("sign", chat, str(pdf))
        found = anna.json("approvals", chat)
        assert [one["verified"] for one in found if one["type"] == "signature"] == [True, True]
        ca = ca_of(federation, "minzdrav", pdf.parent)
        assert openssl_accepts(text.with_name("order.txt.anna@minzdrav.p7s"), text, ca)
        said = pdfsig(pdf.with_name("order.anna@minzdrav.pdf"), ca, pdf.parent / "nss")
        assert "Signature is Valid." in said
        assert "Certificate is Trusted." in said
        other = str(pdf.with_name("other.p7s"))
        wrong = [("--token", "none"), ("--key", "none"), ("--pin-file", str(text))]
        for option, value in wrong:
            text.write_text("4321")
            anna("sign", chat, str(pdf), "-o", other, option, value, code=1)
            assert "token" in anna.said
        text.write_bytes(b"\xff1234")
        anna("sign", chat, str(pdf), "-o", other, "--pin-file", str(text), code=1)
        assert "that PIN is no text" in anna.said
        anna("sign", chat, str(pdf), "-o", other, "--pkcs11", str(text), code=1)
