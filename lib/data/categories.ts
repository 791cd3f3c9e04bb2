import { didYouMean, MixplError } from '../errors.js';
import type { Category } from './types.js';

export interface CategoryChoice {
  /** The data set's categories; the position is the label. */
  readonly categories: readonly Category[];
  /** Label by the file's category id. */
  readonly labelOf: ReadonlyMap<number, number>;
  /** Ids that the file lists but the caller did not choose: left out without a word. */
  readonly notChosen: ReadonlySet<number>;
}

/** Which classes a data set gets, and in which order. */
export interface CategoryOptions {
  /**
   * The categories that training uses, in label order: pass those of the labelled data set for every
   * other one, so that labels agree. Classes are matched by name.
   */
  categories?: readonly Category[] | undefined;
  /** Only these classes; labels still follow the file's order, as in the reference. */
  classes?: readonly string[] | undefined;
  /**
   * Annotations of classes that the data have and `categories` lacks: by the policy of 'unknown-category',
   * or left out without a word, as `classes` leaves out others. @defaultValue 'policy'
   */
  otherClasses?: 'policy' | 'skip' | undefined;
}

/**
 * Decides labels. Without `categories` they follow the order of the annotation file. With them they
 * follow that order, and ids come from the file where it has the class.
 *
 * @throws MixplError ERR_DATA for repeated ids or names, ERR_CONFIG for a class that is not there
 */
export function chooseCategories(
  inFile: readonly Category[],
  options: CategoryOptions & { source: string },
): CategoryChoice {
  const { categories: given, classes, otherClasses, source } = options;
  refuseRepeats(inFile, source);
  let pool: readonly Category[] = inFile;
  if (given?.length) {
    refuseRepeats(given, 'categories');
    if (inFile.length > 0) {
      const idOf = new Map(inFile.map(({ id, name }) => [name, id]));
      const used = new Set(inFile.map(({ id }) => id));
      pool = given.map(({ id, name }) => {
        let own = idOf.get(name);
        for (own ??= id; !idOf.has(name) && used.has(own); ) own++;
        used.add(own);
        return { id: own, name };
      });
    } else pool = given;
  }
  const names = pool.map(({ name }) => name);
  for (const name of classes ?? [])
    if (!names.includes(name)) {
      throw new MixplError(
        'ERR_CONFIG',
        `classes must be names of categories of ${source} (${names.slice(0, 20).join(', ')}), got '${name}'${didYouMean(name, names)}`,
      );
    }
  const chosen = classes ? pool.filter(({ name }) => classes.includes(name)) : pool;
  const labelOf = new Map(chosen.map(({ id }, label) => [id, label]));
  const known = otherClasses === 'skip' ? [...pool, ...inFile] : pool;
  const notChosen = new Set(known.map(({ id }) => id).filter((id) => !labelOf.has(id)));
  return { categories: chosen, labelOf, notChosen };
}

function refuseRepeats(categories: readonly Category[], source: string): void {
  const ids = new Set<number>();
  const names = new Set<string>();
  for (const { id, name } of categories) {
    if (ids.has(id))
      throw new MixplError(
        'ERR_DATA',
        `${source}: categories must have unique ids, got ${id} twice (second: '${name}')`,
      );
    if (names.has(name))
      throw new MixplError(
        'ERR_DATA',
        `${source}: categories must have unique names, got '${name}' twice`,
      );
    ids.add(id);
    names.add(name);
  }
}
