// Postgres.js, which sends queries one behind the other without waiting.
'use strict'
const { Readable } = require('node:stream')
const postgres = require('postgres')
const { says, refused, told, digest, heard, read } = require('./said')

const numbers = (count) => Array.from({ length: count }, (_, n) => n)

const sayingOn = (title, scenario, settings = {}) =>
  says(title, async () => {
    const notices = []
    const sql = postgres({
      max: 1,
      ssl: false,
      onnotice: (notice) => notices.push(told(notice)),
      ...settings
    })
    try {
      const said = await scenario(sql, notices)
      return notices.length ? { said, notices } : said
    } finally {
      await sql.end({ timeout: 5 })
    }
  })

const shape = (result) => ({
  command: result.command,
  count: result.count,
  rows: [...result],
  columns: result.columns && result.columns.map(({ name, type }) => [name, type])
})

describe('postgres.js', function () {
  sayingOn('values of many types', async (sql) =>
    shape(await sql`select ${1}::int2 a, ${2}::int8 b, ${'x'}::text d, ${true}::bool e, ${null}::int f,
      ${[1, 2]}::int[] g, ${sql.json({ a: 1 })}::jsonb h, ${Buffer.from([0, 255])}::bytea i`))

  sayingOn('a description', async (sql) => {
    const { string, types, columns } = await sql`select ${1}::int as a, ${'b'}::text as b`.describe()
    return { string, types, columns: columns.map(({ name, type }) => [name, type]) }
  })

  sayingOn('five hundred queries one behind the other', async (sql) =>
    digest(JSON.stringify(await Promise.all(numbers(500).map((n) =>
      n % 50 === 7
        ? refused(sql`select 1 / (${n}::int - ${n}::int)`)
        : sql`select ${n}::int as n`)))))

  sayingOn('a transaction', async (sql) => {
    await sql`create temp table t (a int primary key)`
    const said = await sql.begin(async (sql) => {
      const inserted = await Promise.all(numbers(20).map((n) => sql`insert into t values (${n}) returning a`))
      const error = await refused(sql.savepoint((sql) => sql`insert into t values (3)`))
      return { inserted: inserted.map(shape), error }
    })
    const failed = await refused(sql.begin(async (sql) => {
      await sql`delete from t`
      await sql`select 1/0`
    }))
    return { said, failed, after: shape(await sql`select count(*) from t`) }
  })

  sayingOn('an error among queries one behind the other in a transaction', async (sql) => {
    await sql`create temp table t (a int)`
    const said = []
    const failed = await refused(sql.begin((sql) => Promise.all([
      sql`insert into t values (1)`,
      refused(sql`select 'x'::int`).then((error) => said.push(error)),
      refused(sql`insert into t values (2)`).then((error) => said.push(error))
    ])).then(() => { throw new Error('committed') }))
    return { said, failed, after: shape(await sql`select * from t`) }
  })

  sayingOn('a cursor', async (sql) => {
    const said = []
    for await (const rows of sql`select n from generate_series(1, 1000) n`.cursor(300)) said.push(rows.length)
    for await (const rows of sql`select n from generate_series(1, 1000) n`.cursor(10)) { said.push(rows.length); break }
    return { said, after: shape(await sql`select 1 as a`) }
  })

  sayingOn('each row as it comes', async (sql) => {
    let sum = 0
    await sql`select n from generate_series(1, 20000) n`.forEach(({ n }) => { sum += n })
    return sum
  })

  sayingOn('texts of several statements, and files', async (sql) => {
    const simple = await sql`select 1 as a; select 2 as b`.simple()
    const error = await refused(sql.unsafe('create temp table gone (a int); select 1/0'))
    return { simple: simple.map(shape), error, gone: await refused(sql`select * from gone`) }
  })

  sayingOn('without prepared statements', async (sql) => [
    shape(await sql`select ${1}::int as a`),
    await refused(sql`select ${'x'}::int`),
    shape(await sql`select count(*) from pg_prepared_statements`)
  ], { prepare: false })

  sayingOn('COPY in and out', async (sql) => {
    await sql`create temp table copied (a int, b text)`
    const into = await sql`copy copied from stdin`.writable()
    const lines = numbers(200).map((n) => `${n}\t${'x'.repeat(n % 100)}\n`)
    // Little, in one piece: its stream may not wake once the socket's buffer was full.
    await heard((tell) => Readable.from([lines.join('')]).pipe(into).on('finish', tell))
    const out = await read(await sql`copy (select * from copied order by a) to stdout`.readable())
    return [out.length, digest(out), shape(await sql`select count(*) from copied`)]
  })

  sayingOn('LISTEN and NOTIFY', async (sql) => {
    let listener
    const payload = heard((tell) => { listener = sql.listen('conformance', tell) })
    const { unlisten } = await listener
    await sql.notify('conformance', 'payload €')
    const said = await payload
    await unlisten()
    return said
  })

  sayingOn('a query that is cancelled', async (sql) => {
    const query = sql`select pg_sleep(60)`
    const asleep = refused(query)
    const other = postgres({ max: 1, ssl: false })
    try {
      while (!(await other`select 1 from pg_stat_activity where query like 'select pg_sleep(60)' and state = 'active'`).count);
      query.cancel()
      return { error: await asleep, after: shape(await sql`select 1 as a`) }
    } finally {
      await other.end({ timeout: 5 })
    }
  })

  sayingOn('notices', async (sql) => {
    await sql`do $$ begin raise notice 'one'; raise warning 'two'; end $$`
    return shape(await sql`drop table if exists nowhere`)
  })

  sayingOn('settings at the start', async (sql) => {
    const notice = await sql`show application_name`
    return [shape(notice), shape(await sql`show default_transaction_isolation`)]
  }, { connection: { application_name: 'y'.repeat(70), default_transaction_isolation: 'serializable' } })

  sayingOn('values of eight megabytes', async (sql) => {
    const text = 'ä€😀x'.repeat(800000)
    const [row] = await sql`select ${text}::text as t, md5(${text}) as m`
    return [digest(row.t), row.m]
  })

  sayingOn('ten connections', async (sql) =>
    (await Promise.all(numbers(50).map((n) => sql`select ${n}::int as n, pg_sleep(0.01)::text`))).map(shape),
  { max: 10 })
})
