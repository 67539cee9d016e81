// Frames: nothing is painted more often than once a frame, and nothing moves for those who asked for that.

export const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** Call `paint` in the next frame, once, however often it is asked for until then. @param {() => void} paint */
export function oncePerFrame(paint) {
  let asked = 0;
  const ask = () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      paint();
    });
  };
  ask.cancel = () => {
    cancelAnimationFrame(asked);
    asked = 0;
  };
  return ask;
}

/**
 * Call `step` with how far a movement is, from 0 to 1, until it is done; at once with 1 if motion is reduced.
 * @param {number} milliseconds @param {(part: number) => void} step
 * @returns {() => void} stops it
 */
export function tween(milliseconds, step) {
  if (reducedMotion.matches || document.hidden) {
    step(1);
    return () => {};
  }
  const started = performance.now();
  let frame = requestAnimationFrame(function next(now) {
    const part = Math.min(1, Math.max(0, now - started) / milliseconds);
    step(1 - (1 - part) ** 3);
    if (part < 1) frame = requestAnimationFrame(next);
  });
  return () => cancelAnimationFrame(frame);
}
