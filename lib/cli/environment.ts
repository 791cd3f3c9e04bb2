/**
 * Settings that the addon's libraries read once, when they are loaded: this module comes before all
 * others. What the user has set stays.
 *
 * Two more are read before any of our code runs and have to come from the shell on large machines:
 * UV_THREADPOOL_SIZE (files and image decoding at the same time, 4 by default) and MALLOC_ARENA_MAX.
 */
const settings = {
  // How long an idle OpenMP thread spins before it sleeps. The default (300,000 rounds, milliseconds)
  // takes the cores from image decoding and makes a shared machine several times slower.
  GOMP_SPINCOUNT: '10000',
};

for (const [name, value] of Object.entries(settings)) process.env[name] ??= value;
