export { writeRunReport } from './run-report.js';
