// build FOLDER COUNT | serve FOLDER PORT | pull FOLDER PORT KEY COUNT
// write FOLDER PORT COUNT RATE | read FOLDER PORT KEY COUNT
// Reports JSON lines with an `event`, as the children of bench/processes.py do.
import Hypercore from 'hypercore'
import crypto from 'crypto'
import net from 'net'

const [role, folder, ...rest] = process.argv.slice(2)
const BYTES = 240
const BATCH = 1000
const OPTIONS = { keepAlive: false }
const now = () => Number(process.hrtime.bigint()) / 1e9 // CLOCK_MONOTONIC, one for all processes
const tell = (event, values = {}) => process.stdout.write(JSON.stringify({ event, ...values }) + '\n')
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const heard = () => new Promise(resolve => process.stdin.once('data', resolve))
const cpu = () => { const used = process.resourceUsage(); return (used.userCPUTime + used.systemCPUTime) / 1e6 }

function join (core, socket, initiator) {
  socket.setNoDelay(true)
  const replication = core.replicate(initiator, OPTIONS)
  socket.pipe(replication).pipe(socket)
  socket.on('error', () => {})
  replication.on('error', () => {})
  return socket
}

function serve (core, port) {
  net.createServer(socket => join(core, socket, false)).listen(+port, '127.0.0.1', () => {
    tell('ready', { key: core.key.toString('hex') })
  })
}

async function build (core, count) {
  for (let at = 0; at < count; at += BATCH) {
    const blocks = []
    for (let n = at; n < Math.min(at + BATCH, count); n++) blocks.push(crypto.randomBytes(BYTES))
    await core.append(blocks)
  }
  await core.close()
  tell('done')
}

async function pull (core, port, count) {
  const before = cpu()
  const begun = now()
  const socket = join(core, net.connect(port, '127.0.0.1'), true)
  while (core.length < count) {
    await core.update({ wait: true })
    if (core.length < count) await sleep(2)
  }
  await core.download({ start: 0, end: count }).done()
  const seconds = now() - begun
  if (core.contiguousLength !== count) throw new Error(`holes after ${core.contiguousLength}`)
  tell('done', { seconds, received: socket.bytesRead, cpu: cpu() - before })
  await core.close()
  process.exit()
}

async function write (core, port, count, rate) {
  serve(core, port)
  await heard()
  const begun = now()
  for (let n = 0; n < count; n++) {
    if (rate) {
      const early = begun + n / rate - now()
      if (early > 0) await sleep(early * 1e3)
    }
    const block = crypto.randomBytes(BYTES)
    block.writeDoubleLE(now(), 0)
    await core.append(block)
  }
  tell('sent', { begun })
}

async function read (core, port, count) {
  join(core, net.connect(port, '127.0.0.1'), true)
  core.download({ start: 0, end: -1 })
  await sleep(500)
  tell('ready')
  const took = []
  for (let n = 0; n < count; n++) {
    const block = await core.get(n)
    took.push((now() - block.readDoubleLE(0)) * 1e3)
  }
  const ended = now()
  took.sort((one, other) => one - other)
  tell('received', { ended, p50: took[took.length >> 1], p99: took[Math.floor(took.length * 0.99)] })
}

const key = role === 'pull' || role === 'read' ? Buffer.from(rest[1], 'hex') : undefined
const core = new Hypercore(folder, key)
await core.ready()
switch (role) {
  case 'build': await build(core, +rest[0]); break
  case 'serve': serve(core, rest[0]); break
  case 'pull': await pull(core, +rest[0], +rest[2]); break
  case 'write': await write(core, +rest[0], +rest[1], +rest[2]); break
  case 'read': await read(core, +rest[0], +rest[2]); break
}
