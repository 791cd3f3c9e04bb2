// Adds up test reports: `node scripts/test-summary.mjs FILE…`, each the JSON of vitest or GoogleTest.
// Prints what failed and ends in the line `N passed, N failed`. `--broken NAME` counts a step that
// failed as a whole, `--left-out NAME` names one that was not run. A report that is missing or has no
// tests counts as a failure, too.
import { existsSync, readFileSync } from 'node:fs';

let passed = 0;
let skipped = 0;
const failures = [];

function addVitest(report) {
  passed += report.numPassedTests;
  skipped += report.numPendingTests + report.numTodoTests;
  for (const file of report.testResults) {
    const failed = file.assertionResults.filter(({ status }) => status === 'failed');
    for (const { fullName } of failed) failures.push(`${file.name}: ${fullName}`);
    if (file.status === 'failed' && failed.length === 0)
      failures.push(`${file.name}: ${file.message}`);
  }
}

function addGoogleTest(report) {
  for (const suite of report.testsuites)
    for (const test of suite.testsuite)
      if (test.failures) failures.push(`${suite.name}.${test.name}`);
      else if (test.result === 'SKIPPED') skipped++;
      else passed++;
}

const args = process.argv.slice(2);
for (let i = 0; i < args.length; i++) {
  if (args[i] === '--broken') {
    failures.push(args[++i]);
    continue;
  }
  if (args[i] === '--left-out') {
    console.log(`LEFT OUT ${args[++i]}`);
    continue;
  }
  if (!existsSync(args[i])) {
    failures.push(`${args[i]}: no report`);
    continue;
  }
  const report = JSON.parse(readFileSync(args[i], 'utf8'));
  const before = passed + failures.length;
  if (report.testResults) addVitest(report);
  else addGoogleTest(report);
  if (passed + failures.length === before) failures.push(`${args[i]}: no tests`);
}

for (const failure of failures) console.log(`FAILED ${failure}`);
if (skipped > 0) console.log(`${skipped} skipped`);
console.log(`${passed} passed, ${failures.length} failed`);
process.exitCode = failures.length > 0 ? 1 : 0;
