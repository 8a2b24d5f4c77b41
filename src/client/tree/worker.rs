//! What all workers have in common: they try again, and leave what they hold to the others when they
//! give up.

use super::{
    queue::{Queue, Walk},
    shared::{OfJob, Shared},
};
use crate::client::{Client, ClientError, retry::Gain};

/// What a worker holds: files, and a job that was its to do.
pub(super) type Held<W> = (Vec<<W as Walk>::File>, Option<<W as Walk>::Job>);

/// One worker, with a line of its own.
pub(super) trait Worker {
    /// The tree that it takes its work from.
    type Walk: Walk;

    /// Works over one line until there is nothing left.
    fn attempt(&mut self, gain: &mut Gain) -> Result<(), ClientError>;

    /// Lets go of all that it holds.
    fn hand_over(&mut self) -> Held<Self::Walk>;

    /// Whether the server ever took a connection of this worker.
    fn had_line(&self) -> bool;
}

/// Runs a worker to its end. One that gives up is no end of the tree while others go on, nor is one
/// whose connection the server does not take because there are enough.
pub(super) fn run<W: Worker>(
    mut worker: W,
    client: &Client,
    queue: &Queue<W::Walk>,
    shared: &Shared<'_>,
    job: usize,
) -> Result<(), ClientError> {
    let mut observer = OfJob { shared, job };
    let mut has_left = false;
    let ran = client.retry(&mut observer, |_, gain| {
        let tried = worker.attempt(gain);
        if let Err(ClientError::TooMany(reason)) = &tried
            && !worker.had_line()
            && queue.leave_to_others(|| worker.hand_over())
        {
            log::info!("{}: {reason}; the tree goes on over fewer", client.address());
            has_left = true;
            return Ok(());
        }
        tried
    });
    if has_left {
        return Ok(());
    }
    if let Err(ClientError::GaveUp(reason)) = &ran
        && queue.leave_to_others(|| worker.hand_over())
    {
        log::warn!("{}: a connection gave up: {reason}", client.address());
        return Ok(());
    }
    queue.leave();
    ran.map(drop)
}
