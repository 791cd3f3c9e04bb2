#!/usr/bin/env node
// Speaks as scripts/peers/ops_torch.py does and takes as many ms as it is told runs; FAKE_PEER says which ops fail, end it, are unknown to it or send who asks a signal: JSON.
import { createInterface } from 'node:readline';

const {
  fails = [],
  ends = [],
  lacks = [],
  signals = {},
} = JSON.parse(process.env.FAKE_PEER ?? '{}');
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
say({ torch: '0', torchvision: '0' });
let op = '';
for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  if (question.prepare) op = question.prepare.op;
  if (question.prepare && signals[op]) process.kill(process.ppid, signals[op]);
  if (question.prepare && lacks.includes(op)) say(null);
  else if (question.prepare) say(true);
  else if (fails.includes(op)) say({ error: 'no kernel image' });
  else if (ends.includes(op)) {
    process.stderr.write('out of memory\n', () => process.exit(3));
    break;
  } else say(question.run);
}
