/** Several processes that train one detector, each with a device. */

export type { ProcessPlace } from './meeting.js';
export { type JoinOptions, ProcessGroup } from './process-group.js';
export { type ProcessesOptions, startProcesses } from './start.js';
