/** Threads that native work may have, as the native side bounds them. */
export const maxThreads = 1024;
