// node-postgres, with its cursors and COPY streams.
'use strict'
const pg = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')
const { says, refused, told, digest, heard, read, written } = require('./said')

const numbers = (count) => Array.from({ length: count }, (_, n) => n)

async function connected(use, settings) {
  const client = new pg.Client(settings)
  client.on('error', () => {})
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end().catch(() => {})
  }
}

const shape = ({ command, rowCount, rows, fields }) => ({
  command,
  rowCount,
  rows,
  fields: fields && fields.map(({ name, dataTypeID, format }) => [name, dataTypeID, format])
})

const sayingOn = (title, scenario, settings) =>
  says(title, () => connected(scenario, settings))

describe('pg', function () {
  sayingOn('values of many types, as text', async (client) =>
    shape(await client.query({
      text: `select 1::int2 a, 2::int8 b, 1.5::numeric c, 'x'::text d, true e, null f,
             '{1,2}'::int[] g, '{"a": 1}'::jsonb h, '\\x00ff'::bytea i, 'NaN'::float8 j`,
      rowMode: 'array'
    })))

  sayingOn('and in binary', async (client) =>
    shape(await client.query({
      text: 'select $1::int4 a, $2::bytea b, $3::text c',
      values: [7, Buffer.from([0, 255]), 'ä€😀'],
      binary: true
    })))

  sayingOn('a prepared statement, a hundred times', async (client) => {
    const said = []
    for (const n of numbers(100)) {
      const { rows } = await client.query({ name: 'twice', text: 'select $1::int * 2 as n', values: [n] })
      said.push(rows[0].n)
    }
    const { rows } = await client.query('select name, statement, parameter_types::text from pg_prepared_statements')
    return { said, rows }
  })

  sayingOn('a prepared statement whose table changes', async (client) => {
    await client.query('create temp table changing (a int)')
    const ask = () => client.query({ name: 'changing', text: 'select * from changing' })
    await ask()
    await client.query('alter table changing add b int')
    const error = await refused(ask())
    await client.query('deallocate all')
    return { error, missing: await refused(ask()) }
  })

  sayingOn('two hundred queries at once', async (client) =>
    (await Promise.all(numbers(200).map((n) =>
      n % 10 === 3
        ? refused(client.query('select 1 / ($1::int - $1::int)', [n]))
        : client.query('select $1::int as n', [n]).then(({ rows }) => rows))))
  )

  sayingOn('several statements in one text', async (client) =>
    (await client.query("select 1 as a; select 'b' as b where false; create temp table c (d int); insert into c values (1), (2) returning d;"))
      .map(shape))

  sayingOn('an error between several statements takes all of them back', async (client) => {
    await client.query('create temp table taken (a int)')
    const error = await refused(client.query('insert into taken values (1); select 1/0; insert into taken values (2)'))
    return { error, after: shape(await client.query('select * from taken')) }
  })

  sayingOn('an empty text', async (client) => shape(await client.query('')))

  sayingOn('errors in a transaction', async (client) => {
    await client.query('begin')
    await client.query('create temp table e (a int primary key, b text not null check (b <> \'\'))')
    await client.query("insert into e values (1, 'one')")
    await client.query('savepoint s')
    const said = [await refused(client.query("insert into e values ($1, 'again')", [1]))]
    said.push(await refused(client.query('select 1')))
    said.push(await refused(client.query('select $1::int', [1])))
    await client.query('rollback to s')
    said.push(await refused(client.query("insert into e values (2, '')")))
    await client.query('rollback to s')
    said.push(await refused(client.query('insert into e values (3, null)')))
    const { command } = await client.query('commit')
    return { said, command, gone: await refused(client.query('select * from e')) }
  })

  sayingOn('errors of many kinds', async (client) => {
    const said = []
    for (const [text, values] of [
      ['select $1::int', ['x']], ['select nothing'], ['selec 1'], ['select * from nowhere'],
      ['select $1::int, $2::int', [1]], ['select 1', [1]], ["select 'x'::date"],
      ['select nothing(1)'], ["do $$ begin raise exception 'own' using errcode = 'GB001', detail = 'd', hint = 'h'; end $$"],
      ['select repeat(\'x\', 2000000000)']
    ]) said.push(await refused(client.query(text, values)))
    return said
  })

  sayingOn('a deferred constraint that fails at the commit', async (client) => {
    await client.query('create temp table d (a int primary key deferrable initially deferred)')
    await client.query('begin')
    await client.query('insert into d values (1), (1)')
    const error = await refused(client.query('commit'))
    return { error, after: shape(await client.query('select * from d')) }
  })

  sayingOn('notices', async (client) => {
    const notices = []
    client.on('notice', (notice) => notices.push(told(notice)))
    await client.query("do $$ begin raise notice 'one'; raise warning 'two' using detail = 'd'; end $$")
    await client.query('drop table if exists nowhere')
    return notices
  })

  sayingOn('settings', async (client) => {
    await client.query("set application_name to 'renamed'; set datestyle to 'SQL, DMY'; set timezone to 'Asia/Tokyo'")
    return shape(await client.query("select '2020-02-01 12:00:00+00'::timestamptz::text, current_setting('application_name')"))
  })

  sayingOn('settings at the start', async (client) =>
    shape(await client.query("select current_setting('search_path'), current_setting('statement_timeout')")),
  { options: '-c search_path=pg_catalog', statement_timeout: 12345 })

  says('a setting at the start that there is not', () =>
    refused(connected(() => {}, { options: '-c nothing=1' })))

  sayingOn('a cursor, in batches', async (client) => {
    const cursor = client.query(new Cursor('select n, repeat(\'x\', n % 50) from generate_series(1, $1::int) n', [1000]))
    const said = []
    for (let rows; (rows = await cursor.read(300)).length > 0;) said.push([rows.length, digest(JSON.stringify(rows))])
    await cursor.close()
    return { said, after: shape(await client.query('select 1 as a')) }
  })

  sayingOn('a cursor, closed early and after an error', async (client) => {
    const early = client.query(new Cursor('select generate_series(1, 100000)'))
    const { length } = await early.read(10)
    await early.close()
    const failing = client.query(new Cursor('select 10 / (5 - n) from generate_series(1, 10) n'))
    const first = await failing.read(4)
    return { length, first, error: await refused(failing.read(4)), after: shape(await client.query('select 1 as a')) }
  })

  sayingOn('COPY in and out', async (client) => {
    await client.query('create temp table copied (a int, b text)')
    const into = client.query(copy.from('copy copied from stdin'))
    await written(into, numbers(10000).map((n) => `${n}\t${'x'.repeat(n % 100)}\n`))
    const out = await read(client.query(copy.to('copy (select * from copied order by a) to stdout (format csv)')))
    const binary = await read(client.query(copy.to('copy copied to stdout (format binary)')))
    return { rows: into.rowCount, length: out.length, out: digest(out), binary: digest(binary) }
  })

  sayingOn('COPY of a row that does not fit', async (client) => {
    await client.query('create temp table copied (a int)')
    const error = await refused(written(client.query(copy.from('copy copied from stdin')), ['1\n', 'two\n', '3\n']))
    return { error, after: shape(await client.query('select * from copied')) }
  })

  sayingOn('COPY out that fails on its way', async (client) => {
    const out = client.query(copy.to('copy (select 10 / (5000 - n) from generate_series(1, 10000) n) to stdout'))
    return { error: await refused(read(out)), after: shape(await client.query('select 1 as a')) }
  })

  sayingOn('LISTEN and NOTIFY', async (client) => {
    await client.query('listen "Conformance channel"')
    const heardOfIt = heard((tell) => client.on('notification', tell))
    const sender = await connected(async (other) => {
      await other.query("select pg_notify('Conformance channel', 'payload €')")
      return other.processID
    })
    const { channel, payload, processId } = await heardOfIt
    return { channel, payload, sender: processId === sender }
  })

  sayingOn('a statement that another session cancels', async (client) => {
    const asleep = refused(client.query('select pg_sleep(60)'))
    await connected(async (other) => {
      const seen = () => other.query("select pg_cancel_backend(pid) from pg_stat_activity where pid = $1 and query like 'select pg_sleep%' and state = 'active'", [client.processID])
      while ((await seen()).rowCount === 0);
    })
    return { error: await asleep, after: shape(await client.query('select 1 as a')) }
  })

  sayingOn('a statement that takes too long', async (client) => {
    await client.query('set statement_timeout to 50')
    return refused(client.query('select pg_sleep(60)'))
  })

  sayingOn('a session that is terminated', async (client) => {
    const asleep = refused(client.query('select pg_sleep(60)'))
    await connected((other) => other.query('select pg_terminate_backend($1)', [client.processID]))
    return asleep
  })

  sayingOn('values of eight megabytes', async (client) => {
    const text = 'ä€😀x'.repeat(800000)
    const bytes = Buffer.alloc(6000000, 'abc\0')
    const { rows } = await client.query('select $1::text as t, $2::bytea as b, md5($1) as m', [text, bytes])
    const { rows: written } = await client.query(`select '${text}' as t`)
    return [digest(rows[0].t), digest(rows[0].b), rows[0].m, written[0].t === text]
  })

  sayingOn('a hundred thousand rows', async (client) => {
    const { rows } = await client.query("select n, n::text || 'x' as t from generate_series(1, 100000) n")
    return [rows.length, digest(JSON.stringify(rows))]
  })

  says('forty clients of a pool', async () => {
    const pool = new pg.Pool({ max: 10 })
    try {
      const said = await Promise.all(numbers(40).map((n) =>
        pool.query('select $1::int as n, pg_sleep(0.01)::text', [n]).then(({ rows }) => rows)))
      return said
    } finally {
      await pool.end()
    }
  })
})
