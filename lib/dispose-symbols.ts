/**
 * Symbol.dispose and Symbol.asyncDispose where they are missing: before version 24 Node gives them to its main context
 * alone, and tests may run in one of node:vm (vitest's vmThreads and vmForks). Node's own classes have methods by these
 * very symbols. This module comes before all that use them.
 */
for (const name of ['dispose', 'asyncDispose'] as const)
  if (!(name in Symbol))
    Object.defineProperty(Symbol, name, { value: Symbol.for(`nodejs.${name}`) });
