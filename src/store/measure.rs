//! Measuring what is stored in a home, in slices.
//!
//! The walk holds one directory open and keeps, for each directory above, which one that was and
//! how far it was read: so depth costs neither stack nor descriptors. It goes up by `..`, and begins
//! anew if that leads anywhere but to where it came from.

use std::{
    mem::MaybeUninit,
    ops::ControlFlow,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Mode, RawDir, ResolveFlags, SeekFrom, openat, openat2, seek, statat},
    io::Errno,
};

use super::{
    Root, StoreError,
    error::Doing,
    expire::{is_temporary, stem_of},
    listing::Kind,
    quota::Usage,
    root::{DIRECTORY, INTERNAL, identity},
};

/// Names looked at in one step: other jobs of the disk thread wait no longer than that takes.
const NAMES_PER_STEP: usize = 256;

/// How often a walk begins anew because a directory was moved away under it.
const RESTARTS_MAX: usize = 16;

/// A walk through a home, in steps.
#[derive(Debug)]
pub struct Walk {
    usage: Usage,
    /// The directory that is being read, and how far it was.
    dir: OwnedFd,
    place: u64,
    /// The same for those above it, up to the home.
    above: Vec<Above>,
    is_in_partials: bool,
    restarts: usize,
}

#[derive(Debug)]
struct Above {
    identity: (u64, u64),
    place: u64,
}

/// Why the reading of a directory is interrupted.
enum Next {
    Pause,
    Down(OwnedFd),
    Up,
}

impl Root {
    /// Begins a walk that measures what is stored here: what anybody can see, and partials.
    ///
    /// # Errors
    /// The directory can't be opened.
    pub fn measure(&self) -> Result<Walk, StoreError> {
        Ok(Walk {
            usage: Usage::default(),
            dir: self.another_handle()?,
            place: 0,
            above: Vec::new(),
            is_in_partials: false,
            restarts: 0,
        })
    }

    /// Goes on with a walk; `Break` when it is over. What vanishes meanwhile, and what may not be
    /// read, is passed over. Other changes may be seen or not: the sum is exact if there were none.
    ///
    /// # Errors
    /// In `Break`: the disk can't be read, descriptors ran out, or directories are moved all the
    /// time. Then nothing is known.
    pub fn measure_step(&self, mut walk: Walk) -> ControlFlow<Result<Usage, StoreError>, Walk> {
        let mut left = NAMES_PER_STEP;
        while left > 0 {
            match self.measure_on(&mut walk, &mut left) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return ControlFlow::Break(Ok(walk.usage)),
                Err(error) => return ControlFlow::Break(Err(error)),
            }
        }
        ControlFlow::Continue(walk)
    }

    /// Reads on in one directory, and goes to the next.
    fn measure_on(&self, walk: &mut Walk, left: &mut usize) -> Result<ControlFlow<()>, StoreError> {
        match walk.read(left)? {
            Next::Pause => {}
            Next::Down(dir) => {
                let (identity, place) = (identity(walk.dir.as_fd())?, walk.place);
                walk.above.push(Above { identity, place });
                (walk.dir, walk.place) = (dir, 0);
            }
            Next::Up => {
                *left = left.saturating_sub(1);
                match (walk.above.pop(), self.partials()) {
                    (Some(above), _) => self.ascend(walk, &above)?,
                    (None, Some(partials)) if !walk.is_in_partials => {
                        let dir = openat(partials, ".", DIRECTORY, Mode::empty());
                        (walk.dir, walk.place) = (dir.doing("opening the partials")?, 0);
                        walk.is_in_partials = true;
                    }
                    (None, _) => return Ok(ControlFlow::Break(())),
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn ascend(&self, walk: &mut Walk, above: &Above) -> Result<(), StoreError> {
        let dir = openat(&walk.dir, "..", DIRECTORY, Mode::empty()).doing("measuring a home")?;
        if identity(dir.as_fd())? == above.identity {
            (walk.dir, walk.place) = (dir, above.place);
            return Ok(());
        }
        if walk.restarts == RESTARTS_MAX {
            return Err(StoreError::Io { doing: "measuring a home", errno: Errno::AGAIN });
        }
        *walk = Walk { restarts: walk.restarts + 1, ..self.measure()? };
        Ok(())
    }

    /// A handle of the root with a reading position of its own.
    fn another_handle(&self) -> Result<OwnedFd, StoreError> {
        openat(self.dir(), ".", DIRECTORY, Mode::empty()).doing("measuring a home")
    }
}

impl Walk {
    fn read(&mut self, left: &mut usize) -> Result<Next, StoreError> {
        seek(&self.dir, SeekFrom::Start(self.place)).doing("going on in a directory")?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
        let mut names = RawDir::new(&self.dir, &mut buffer);
        while let Some(name) = names.next() {
            let name = match name {
                // The directory itself was removed.
                Err(Errno::NOENT) => break,
                name => name.doing("reading a directory")?,
            };
            if *left == 0 {
                return Ok(Next::Pause);
            }
            *left -= 1;
            self.place = name.next_entry_cookie();
            let bare = name.file_name().to_bytes();
            if !self.counts(bare) {
                continue;
            }
            let stat = match statat(&self.dir, bare, AtFlags::SYMLINK_NOFOLLOW) {
                Err(errno) if is_passed_over(errno) => continue,
                stat => stat.doing("looking at a name")?,
            };
            let is_dir = Kind::of(&stat) == Kind::Directory;
            if self.is_in_partials && is_dir {
                continue;
            }
            self.usage = self.usage.plus(Usage::of(&stat));
            if is_dir && let Some(dir) = enter(&self.dir, bare)? {
                return Ok(Next::Down(dir));
            }
        }
        Ok(Next::Up)
    }

    /// Whether a name is looked at. Partials of homes that lie within are not this home's.
    fn counts(&self, name: &[u8]) -> bool {
        if self.is_in_partials {
            let is_data = stem_of(name).is_some() && name.ends_with(b".data");
            return is_data || is_temporary(name);
        }
        !matches!(name, b"." | b"..") && name != INTERNAL.as_bytes()
    }
}

/// Opens a directory to read it; `None` if it is not there any more, or may not be read.
fn enter(parent: &OwnedFd, name: &[u8]) -> Result<Option<OwnedFd>, StoreError> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(parent, name, DIRECTORY, Mode::empty(), resolve);
    // One that may be read but not searched would have no way back.
    match opened.and_then(|dir| statat(&dir, ".", AtFlags::empty()).map(|_| dir)) {
        Err(errno) if is_passed_over(errno) => Ok(None),
        dir => dir.map(Some).doing("opening a directory"),
    }
}

/// Whether an error means that a name has gone, changed its kind, or is none of ours.
const fn is_passed_over(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::PERM)
}
