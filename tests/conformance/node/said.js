// Scenarios: what one says is compared between a direct connection and one through a gateway.
'use strict'
const assert = require('node:assert')
const { createHash } = require('node:crypto')

// Without file, line and routine: a place in the server's source is not part of what is said.
const FIELDS = [
  'severity', 'code', 'message', 'detail', 'hint', 'position', 'where', 'schema', 'schema_name',
  'table', 'table_name', 'column', 'column_name', 'constraint', 'constraint_name'
]

/** A test that fails when `scenario` throws, and differs when it says something else. */
exports.says = (title, scenario) =>
  it(title, async function () {
    const said = await scenario()
    assert.notStrictEqual(said, undefined)
    this.test.output = JSON.stringify(said)
  })

/** The fields of the error that `promise` must end with. */
exports.refused = async (promise) => {
  let error
  try {
    await promise
  } catch (caught) {
    error = caught
  }
  assert(error, 'expected an error')
  return exports.told(error)
}

/** The fields of an error or notice. */
exports.told = (error) =>
  Object.fromEntries(FIELDS.filter((name) => error[name]).map((name) => [name, error[name]]))

exports.digest = (data) => createHash('sha256').update(data).digest('hex').slice(0, 16)

/** A promise for something that `start` hands to its callback. */
exports.heard = (start) => new Promise((resolve) => start(resolve))

exports.read = async (stream) => {
  const chunks = []
  for await (const chunk of stream) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

exports.written = (stream, chunks) =>
  require('node:stream/promises').pipeline(require('node:stream').Readable.from(chunks), stream)
