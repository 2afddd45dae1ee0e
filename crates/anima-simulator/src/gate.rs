//! The gate before the end of an answer: closed until somebody opens it.
//!
//! For tests of long calls: a length of time is too short on a slow machine and too long on a fast
//! one. Not here: which answers wait (`behaviour`). Invariant: opening lets everything through that
//! has arrived by then, and nothing that arrives later.

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// A simulator's gate.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    opened: u64,
    waiting: Vec<Waker>,
}

impl Gate {
    /// How often it was opened: what an arrival has to remember.
    pub(crate) fn opened(&self) -> u64 {
        self.0.lock().opened
    }

    /// Lets through what waits.
    pub(crate) fn open(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.opened = state.opened.wrapping_add(1);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ready once it was opened after an arrival.
    pub(crate) fn poll(&self, since: u64, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.opened != since {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
