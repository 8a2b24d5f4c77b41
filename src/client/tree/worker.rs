//! What all workers have in common: they go on until nothing is left, try again, and leave what they
//! hold to the others when they give up.

use std::path::Path;

use super::{
    TreeEvent,
    held::{File, Held},
    local::bytes,
    queue::{Next, Walk},
    shared::OfJob,
};
use crate::{
    client::{
        ClientError, Observer, Transferred,
        line::Line,
        retry::{Gain, sleep},
    },
    limits::BUSY_PAUSE,
};

/// One worker, with a line of its own.
pub(super) trait Worker<'a> {
    /// The tree that it takes its work from.
    type Walk: Walk<File: File> + 'a;

    /// What it holds.
    fn held(&mut self) -> &mut Held<'a, Self::Walk>;

    /// The line broke: what was said on it and not answered has to be said again.
    fn take_back(&mut self);

    /// Does what has to be done before the walk goes on, and tells the walk; puts it back if the line
    /// broke. Nothing is awaited on the line.
    fn do_job(
        &mut self,
        job: <Self::Walk as Walk>::Job,
        line: &mut Option<Line>,
    ) -> Result<(), ClientError>;

    /// Says what may be said ahead, and takes an answer. Returns whether one was awaited.
    fn advance(&mut self, line: &mut Option<Line>) -> Result<bool, ClientError>;

    /// Moves a file as [`Client::get`](crate::client::Client::get) and
    /// [`Client::put`](crate::client::Client::put) do.
    fn move_alone(
        &mut self,
        file: &<Self::Walk as Walk>::File,
        shown: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Transferred, ClientError>;

    /// The next file, if there is one by now; what stands before it is done. `awaits` says whether
    /// something is awaited on the line.
    fn next(
        &mut self,
        line: &mut Option<Line>,
        awaits: bool,
    ) -> Result<Option<<Self::Walk as Walk>::File>, ClientError> {
        loop {
            // Comes up only where nothing is awaited, also after a break.
            if let Some(job) = self.held().to_do.take() {
                self.do_job(job, line)?;
            }
            match self.held().next(awaits)? {
                Next::File(file) => return Ok(Some(file)),
                Next::Job(job) => self.held().to_do = Some(job),
                Next::NotNow | Next::End => return Ok(None),
            }
        }
    }
}

/// Runs a worker to its end. One that gives up is no end of the tree while others go on, nor is one
/// whose connection the server does not take because there are enough.
pub(super) fn run<'a>(mut worker: impl Worker<'a>) -> Result<(), ClientError> {
    let held = worker.held();
    let (client, queue, mut observer) = (held.client, held.queue, of_job(held));
    let mut has_left = false;
    let ran = client.retry(&mut observer, |_, gain| {
        let tried = attempt(&mut worker, gain);
        if tried.is_err() {
            worker.take_back();
        }
        if let Err(ClientError::TooMany(reason)) = &tried
            && !worker.held().had_line
            && queue.leave_to_others(|| worker.held().hand_over())
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
        && queue.leave_to_others(|| worker.held().hand_over())
    {
        log::warn!("{}: a connection gave up: {reason}", client.address());
        return Ok(());
    }
    queue.leave();
    ran.map(drop)
}

fn of_job<'a, W: Walk>(held: &Held<'a, W>) -> OfJob<'a> {
    OfJob { shared: held.shared, job: held.job }
}

/// Works over one line until there is nothing left.
fn attempt<'a>(worker: &mut impl Worker<'a>, gain: &mut Gain) -> Result<(), ClientError> {
    let mut line = None;
    loop {
        let advanced = worker.advance(&mut line);
        // What was done before a break is done all the same.
        gain.reached(worker.held().done);
        if advanced? {
            continue;
        }
        let held = worker.held();
        if held.alone.is_some() {
            held.open(&mut line)?;
            line.take().into_iter().for_each(|line| held.client.keep(line));
            move_alone(worker)?;
        } else if !held.later.is_empty() {
            sleep(BUSY_PAUSE, &held.client.options.stop)?;
            held.again.append(&mut held.later);
        } else {
            line.into_iter().for_each(|line| held.client.keep(line));
            return Ok(());
        }
    }
}

/// Moves the file that waited until nothing was awaited.
fn move_alone<'a>(worker: &mut impl Worker<'a>) -> Result<(), ClientError> {
    let Some(file) = worker.held().alone.take() else {
        return Ok(());
    };
    let (shown, mut observer) = (file.shown(), of_job(worker.held()));
    observer.shared.tell(observer.job, TreeEvent::Begin { name: bytes(&shown) });
    let moved = worker.move_alone(&file, &shown, &mut observer);
    let held = worker.held();
    match moved {
        Ok(done) => {
            held.done += 1;
            // Its bytes were counted as they went.
            let moved = (!done.unchanged).then_some(0);
            held.shared.done(held.job, bytes(&shown), done.size, moved);
        }
        Err(error) if error.is_of_one_file() => held.failed(file, &error),
        Err(error) => {
            held.alone = Some(file);
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::*;
    use crate::client::{
        Client, Options,
        tree::{
            held::Tries,
            queue::{Queue, Step},
            shared::Shared,
        },
    };

    struct Nothing;

    impl File for Nothing {
        fn shown(&self) -> PathBuf {
            PathBuf::new()
        }

        fn tries(&mut self) -> &mut Tries {
            unreachable!("it is never tried")
        }
    }

    impl Walk for Nothing {
        type File = Self;
        type Job = ();
        type Left = ();

        fn left_behind(&mut self) {}

        fn step(&mut self, _: &Shared<'_>) -> Step<Self, ()> {
            Step::End
        }
    }

    /// Its line breaks behind each of a hundred files.
    struct Breaking<'a>(Held<'a, Nothing>);

    impl<'a> Worker<'a> for Breaking<'a> {
        type Walk = Nothing;

        fn held(&mut self) -> &mut Held<'a, Nothing> {
            &mut self.0
        }

        fn take_back(&mut self) {}

        fn do_job(&mut self, (): (), _: &mut Option<Line>) -> Result<(), ClientError> {
            Ok(())
        }

        fn advance(&mut self, _: &mut Option<Line>) -> Result<bool, ClientError> {
            if self.0.done == 100 {
                return Ok(false);
            }
            self.0.done += 1;
            Err(ClientError::Broken("cut".to_owned()))
        }

        fn move_alone(
            &mut self,
            _: &Nothing,
            _: &Path,
            _: &mut dyn Observer,
        ) -> Result<Transferred, ClientError> {
            Err(ClientError::Interrupted)
        }
    }

    #[test]
    fn what_was_done_before_a_line_broke_buys_patience() {
        let options = Options {
            give_up: Duration::from_millis(20),
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(1),
            ..Options::default()
        };
        let client = Client::new(&"tow://host/".parse().unwrap(), options);
        let (queue, shared) = (Queue::new(Nothing, 1), Shared::new(&()));
        run(Breaking(Held::new(&client, &queue, &shared, 0))).unwrap();
        assert_eq!(shared.finish().breaks, 100);
    }
}
