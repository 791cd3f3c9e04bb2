// Links between the pages: nothing that a reader clicks on is missing, in a checkout or in the package.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect, test } from 'vitest';

const pages = [
  ...['README.md', 'CHANGELOG.md', 'lib/README.md', 'lib/DECISIONS.md'],
  ...['native/README.md', 'native/DECISIONS.md'],
  ...readdirSync('docs').map((name) => join('docs', name)),
];

/** What a page links to in this repository: the file, and the heading's anchor if there is one. */
function linksOf(page: string): { link: string; file: string; anchor: string | undefined }[] {
  const links = readFileSync(page, 'utf8').matchAll(/\]\(([^)\s]+)\)/g);
  return [...links]
    .map(([, link]) => link!)
    .filter((link) => !/^[a-z]+:/.test(link))
    .map((link) => {
      const [path, anchor] = link.split('#') as [string, string | undefined];
      return { link, file: path ? normalize(join(dirname(page), path)) : page, anchor };
    });
}

/** As a Markdown page's headings are linked to. */
function anchorsOf(file: string): string[] {
  const headings = readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm);
  return [...headings].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replaceAll(' ', '-'),
  );
}

test.each(pages)('%s links to what is there', (page) => {
  for (const { link, file, anchor } of linksOf(page)) {
    expect(existsSync(file), `${link} in ${page}`).toBe(true);
    if (anchor) expect(anchorsOf(file), `${link} in ${page}`).toContain(anchor);
  }
});

test('what README links to is in the package', () => {
  const { files } = JSON.parse(readFileSync('package.json', 'utf8')) as { files: string[] };
  const links = linksOf('README.md');
  expect(links.length).toBeGreaterThan(10);
  for (const { link, file } of links)
    expect(
      files.some((packed) => file === packed || file.startsWith(`${packed}/`)),
      `${link} of README.md`,
    ).toBe(true);
});

test('every page of docs is linked to', () => {
  const linked = new Set(pages.flatMap(linksOf).map(({ file }) => file));
  for (const page of readdirSync('docs')) expect([...linked]).toContain(join('docs', page));
});
