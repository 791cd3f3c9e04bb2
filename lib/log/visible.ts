/**
 * Control characters: C0 but tab and line feed, DEL, C1, and those that turn the direction of writing.
 * Names in data sets come from anywhere; a terminal would obey them.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const controls = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** `text` for a terminal: control characters as `\x1b` or `\u202e`. */
export function visible(text: string): string {
  return text.replace(controls, (character) => {
    const code = character.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code}` : `\\x${code.padStart(2, '0')}`;
  });
}
