//! Several problems at a time, each on a device of its own: most of their time, one thread of the
//! driver compiles for a device.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::Args;
use dynconv::Context;

use crate::{AdapterArgs, say, stop};

/// Devices without being asked, at most: each has memory of its own.
const MOST: usize = 4;

/// How many problems at a time.
#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    /// Problems at a time, each on a device of its own; as many as processor cores, but at most 4,
    /// unless said otherwise
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

impl JobsArgs {
    /// A context a job; no more than there are problems, but one at least.
    pub(crate) fn contexts(
        &self,
        adapter: &AdapterArgs,
        problems: usize,
    ) -> anyhow::Result<Vec<Context>> {
        (0..self.get(problems)).map(|_| adapter.context()).collect()
    }

    /// How many; no more than there are problems, but one at least.
    pub(crate) fn get(&self, problems: usize) -> usize {
        let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST);
        self.jobs.map_or_else(cores, NonZeroUsize::get).min(problems).max(1)
    }
}

/// Does `work` on each item, as many at a time as there are workers, each with what is its own.
/// Results come in the order of the items; after the first `Break`, or when the run is to stop, no
/// more items are begun.
pub(crate) fn each<W: Sync, T: Send, R: Send>(
    workers: &[W],
    items: Vec<T>,
    work: impl Fn(&W, T) -> ControlFlow<R, R> + Sync,
) -> Vec<R> {
    let queue = Mutex::new(Some(items.into_iter().enumerate()));
    let done = Mutex::new(Vec::new());
    let next = || {
        if stop::is_asked() { None } else { say::lock(&queue).as_mut().and_then(Iterator::next) }
    };
    let job = |worker: &W| {
        while let Some((place, item)) = next() {
            let result = match work(worker, item) {
                ControlFlow::Continue(result) => result,
                ControlFlow::Break(result) => {
                    *say::lock(&queue) = None;
                    result
                }
            };
            say::lock(&done).push((place, result));
        }
    };
    thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| job(worker));
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// What a mutex holds; a job that panicked ends the run anyway.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let slow_first = |(): &(), item: u64| {
            thread::sleep(std::time::Duration::from_millis(5 * (8 - item)));
            ControlFlow::Continue(item)
        };
        assert_eq!(each(&[(); 3], (0..8).collect(), slow_first), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_begun_after_a_break() {
        let work = |(): &(), item| {
            if item == 3 { ControlFlow::Break(item) } else { ControlFlow::Continue(item) }
        };
        assert_eq!(each(&[()], (0..8).collect(), work), [0, 1, 2, 3]);
    }
}
