/** A table for a terminal: names on the left, numbers. cli-table3 is loaded on use: the command line must start at once. */
export async function tableOf(head: readonly string[]) {
  const { default: Table } = await import('cli-table3');
  return new Table({
    head: [...head],
    colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
    style: { head: [], border: [], compact: true },
  });
}
