/**
 * The addon's settings hold for the whole command, and for the programs that it starts (peers of a benchmark): this
 * module comes before all others. What the user has set stays.
 *
 * Two more are read before any of our code runs and have to come from the shell on large machines:
 * UV_THREADPOOL_SIZE (files and image decoding at the same time, 4 by default) and MALLOC_ARENA_MAX.
 */
import { addonSettings } from '../addon-file.js';

for (const [name, value] of Object.entries(addonSettings)) process.env[name] ??= value;
