// A mocha reporter: one JSON line per test, written as it ends.
'use strict'
const fs = require('node:fs')
const { Runner } = require('mocha')

const { EVENT_TEST_PASS, EVENT_TEST_FAIL, EVENT_TEST_PENDING } = Runner.constants

module.exports = class {
  constructor(runner) {
    const log = process.env.CONFORMANCE_OUTCOMES
    const note = (test, outcome, text) => {
      const line = { test: test.fullTitle(), outcome, text, output: test.output || '' }
      fs.appendFileSync(log, JSON.stringify(line) + '\n')
    }
    runner.on(EVENT_TEST_PASS, (test) => note(test, 'passed', ''))
    runner.on(EVENT_TEST_PENDING, (test) => note(test, 'skipped', ''))
    runner.on(EVENT_TEST_FAIL, (test, error) => note(test, 'failed', String(error.stack || error)))
  }
}
