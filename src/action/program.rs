//! Whether a program is what the operator meant: nobody but root and the server's own user can
//! have put it there, and no upload has.
//!
//! Checked when the configuration is loaded, and again right before each run. Between that and the
//! `execve` only root and the server's user could still swap it.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use rustix::process::geteuid;

/// Where programs without a path are looked for, once, when the configuration is loaded; and the
/// `PATH` of every action.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Links on the way to a program, as Linux counts them.
const LINKS_MAX: usize = 40;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const EXECUTABLE: u32 = 0o111;

/// A program that is not run.
#[derive(Debug, thiserror::Error)]
#[error("{program:?} can't be run: {at:?} {fault}")]
pub struct ProgramError {
    /// The program.
    pub program: PathBuf,
    /// The file or directory that is at fault, on the way to it.
    pub at: PathBuf,
    /// What is wrong with that.
    pub fault: ProgramFault,
}

/// What is wrong with a program or its way.
#[derive(Debug, thiserror::Error)]
pub enum ProgramFault {
    /// Neither an absolute path nor a bare name.
    #[error("is neither an absolute path nor a name without a slash")]
    Relative,
    /// Nowhere in [`PATH`].
    #[error("is not in {PATH}")]
    NotInPath,
    /// It can't be looked at.
    #[error("can't be looked at: {0}")]
    Io(#[from] io::Error),
    /// A link that goes round, or a chain of too many.
    #[error("is behind too many links")]
    Links,
    /// A directory, a device and the like.
    #[error("is not a regular file")]
    NotAFile,
    /// A file where a directory should be.
    #[error("is not a directory")]
    NotADirectory,
    /// Nobody may execute it.
    #[error("is not executable")]
    NotExecutable,
    /// It belongs to somebody else than root and the server's user.
    #[error("belongs to user {0}, who is neither root nor the server's own")]
    Owner(u32),
    /// Group or others may write to it, sticky or not.
    #[error("can be written to by its group or by others (mode {0:o})")]
    Writable(u32),
    /// It lies in the folder that users write to.
    #[error("is the served folder, where users could have put the program")]
    Served,
}

/// The absolute path of a program that the operator named, checked.
pub(super) fn find(named: &str, served: &Path) -> Result<PathBuf, ProgramError> {
    let fault = |fault| ProgramError { program: named.into(), at: named.into(), fault };
    let program = match named.find('/') {
        Some(0) => PathBuf::from(named),
        Some(_) => return Err(fault(ProgramFault::Relative)),
        None => {
            let mut candidates = PATH.split(':').map(|folder| Path::new(folder).join(named));
            let is_program = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file());
            let found = candidates.find(is_program).filter(|_| !matches!(named, "" | "." | ".."));
            found.ok_or_else(|| fault(ProgramFault::NotInPath))?
        }
    };
    check(&program, served)?;
    Ok(program)
}

/// Whether `program` is a regular executable file that, like every directory on the way to it and
/// to what links lead to, belongs to root or the server's own user and can't be written to by
/// group or others; and that the way does not lead through the folder `served`.
///
/// # Errors
/// [`ProgramError`] names the first thing on the way that is wrong.
pub fn check(program: &Path, served: &Path) -> Result<(), ProgramError> {
    let fault = |at: &Path, fault| ProgramError { program: program.into(), at: at.into(), fault };
    if !program.is_absolute() {
        return Err(fault(program, ProgramFault::Relative));
    }
    let folder = fs::metadata(served).map_err(|error| fault(served, error.into()))?;
    let trusted = Trust {
        top: Path::new("/"),
        owners: [0, geteuid().as_raw()],
        served: (folder.dev(), folder.ino()),
    };
    trusted.walk(program).map_err(|(at, why)| fault(&at, why))
}

/// Whom and what to trust.
struct Trust<'a> {
    /// Where absolute paths begin.
    top: &'a Path,
    owners: [u32; 2],
    /// Device and inode of the served folder: it may be mounted elsewhere, too.
    served: (u64, u64),
}

impl Trust<'_> {
    /// Goes to the program name by name, as the kernel would, and looks at each directory that it
    /// comes through: whoever may write to one of them decides what is run.
    fn walk(&self, program: &Path) -> Result<(), (PathBuf, ProgramFault)> {
        let mut here = self.top.to_owned();
        self.directory(&here).map_err(|fault| (here.clone(), fault))?;
        let mut way = Vec::new();
        go_on(&mut way, program);
        let mut links = 0;
        while let Some(name) = way.pop() {
            if name == "/" {
                here = self.top.to_owned();
                continue;
            }
            if name == ".." {
                // Where it leads has been looked at: `here` has no links in it.
                here.pop();
                continue;
            }
            let next = here.join(&name);
            let at = |fault| (next.clone(), fault);
            let found = fs::symlink_metadata(&next).map_err(|error| at(error.into()))?;
            if found.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return Err(at(ProgramFault::Links));
                }
                go_on(&mut way, &fs::read_link(&next).map_err(|error| at(error.into()))?);
            } else if found.is_dir() {
                self.directory(&next).map_err(at)?;
                here = next;
            } else if way.is_empty() {
                return self.file(&found).map_err(at);
            } else {
                return Err(at(ProgramFault::NotADirectory));
            }
        }
        Err((here, ProgramFault::NotAFile))
    }

    fn directory(&self, path: &Path) -> Result<(), ProgramFault> {
        let found = fs::symlink_metadata(path)?;
        if (found.dev(), found.ino()) == self.served {
            return Err(ProgramFault::Served);
        }
        self.safe(&found)
    }

    fn file(&self, found: &Metadata) -> Result<(), ProgramFault> {
        if !found.is_file() {
            return Err(ProgramFault::NotAFile);
        }
        if found.mode() & EXECUTABLE == 0 {
            return Err(ProgramFault::NotExecutable);
        }
        self.safe(found)
    }

    fn safe(&self, found: &Metadata) -> Result<(), ProgramFault> {
        if !self.owners.contains(&found.uid()) {
            return Err(ProgramFault::Owner(found.uid()));
        }
        if found.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(ProgramFault::Writable(found.mode() & 0o7777));
        }
        Ok(())
    }
}

/// Puts the names of a path on top of those that are still to go.
fn go_on(way: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter(|name| *name != Component::CurDir);
    way.extend(names.map(|name| name.as_os_str().to_owned()));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A file system of its own: folders `bin`, `served`, `open` (for all to write), and programs.
    struct Tree {
        top: TempDir,
    }

    impl Tree {
        fn new() -> Self {
            let tree = Self { top: tempfile::tempdir().unwrap() };
            tree.mode("", 0o755);
            for (folder, mode) in [("bin", 0o755), ("served", 0o755), ("open", 0o1777)] {
                fs::create_dir(tree.top.path().join(folder)).unwrap();
                tree.mode(folder, mode);
            }
            tree.program("bin/good", 0o755);
            tree
        }

        fn mode(&self, name: &str, mode: u32) {
            fs::set_permissions(self.top.path().join(name), PermissionsExt::from_mode(mode))
                .unwrap();
        }

        fn program(&self, name: &str, mode: u32) {
            fs::write(self.top.path().join(name), "#!/bin/sh\n").unwrap();
            self.mode(name, mode);
        }

        fn link(&self, name: &str, to: &str) {
            symlink(to, self.top.path().join(name)).unwrap();
        }

        fn walk(&self, program: &str) -> Result<(), (PathBuf, ProgramFault)> {
            self.walk_trusting([0, geteuid().as_raw()], program)
        }

        fn walk_trusting(
            &self,
            owners: [u32; 2],
            program: &str,
        ) -> Result<(), (PathBuf, ProgramFault)> {
            let served = fs::metadata(self.top.path().join("served")).unwrap();
            let served = (served.dev(), served.ino());
            Trust { top: self.top.path(), owners, served }.walk(Path::new(program))
        }

        /// The fault, and where below the top.
        fn fault(&self, program: &str) -> (String, ProgramFault) {
            let (at, fault) = self.walk(program).unwrap_err();
            (at.strip_prefix(self.top.path()).unwrap().display().to_string(), fault)
        }
    }

    #[test]
    fn a_program_of_the_system_is_good() {
        let served = tempfile::tempdir().unwrap();
        check(Path::new("/bin/sh"), served.path()).unwrap();
        let found = find("sh", served.path()).unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"));
    }

    #[test]
    fn a_relative_path_and_an_unknown_name_are_refused() {
        let served = tempfile::tempdir().unwrap();
        for named in ["bin/sh", "./sh", "../bin/sh"] {
            let error = find(named, served.path()).unwrap_err();
            assert!(matches!(error.fault, ProgramFault::Relative), "{error}");
            let error = check(Path::new(named), served.path()).unwrap_err();
            assert!(matches!(error.fault, ProgramFault::Relative), "{error}");
        }
        for named in ["", ".", "..", "no-program-has-this-name"] {
            let error = find(named, served.path()).unwrap_err();
            assert!(matches!(error.fault, ProgramFault::NotInPath), "{error}");
        }
    }

    #[test]
    fn a_program_in_a_world_writable_folder_is_refused_sticky_or_not() {
        let tree = Tree::new();
        tree.walk("/bin/good").unwrap();
        tree.program("open/program", 0o755);
        for mode in [0o1777, 0o777, 0o775] {
            tree.mode("open", mode);
            let (at, fault) = tree.fault("/open/program");
            assert!(at == "open" && matches!(fault, ProgramFault::Writable(_)), "{at} {fault}");
        }
    }

    #[test]
    fn a_program_that_is_no_executable_file_of_one_owner_is_refused() {
        let tree = Tree::new();
        tree.program("bin/group", 0o775);
        tree.program("bin/others", 0o757);
        tree.program("bin/data", 0o644);
        for name in ["bin/group", "bin/others"] {
            let (at, fault) = tree.fault(&format!("/{name}"));
            assert!(at == name && matches!(fault, ProgramFault::Writable(_)), "{at} {fault}");
        }
        assert!(matches!(tree.fault("/bin/data").1, ProgramFault::NotExecutable));
        assert!(matches!(tree.fault("/bin").1, ProgramFault::NotAFile));
        assert!(matches!(tree.fault("/bin/good/more").1, ProgramFault::NotADirectory));
        assert!(matches!(tree.fault("/bin/absent").1, ProgramFault::Io(_)));
        let error = check(Path::new("/dev/null"), tree.top.path()).unwrap_err();
        assert!(matches!(error.fault, ProgramFault::NotAFile), "{error}");
        let foreign = geteuid().as_raw() + 1;
        let (_, fault) = tree.walk_trusting([foreign, foreign], "/bin/good").unwrap_err();
        assert!(matches!(fault, ProgramFault::Owner(_)), "{fault}");
    }

    #[test]
    fn a_link_is_judged_by_every_folder_on_its_way() {
        let tree = Tree::new();
        tree.link("bin/straight", "good");
        tree.link("bin/round", "/bin/../bin/./straight");
        tree.walk("/bin/straight").unwrap();
        tree.walk("/bin/round").unwrap();
        // It leads to a good program, but whoever may write to `open` can let it lead elsewhere.
        tree.link("open/link", "/bin/good");
        tree.link("bin/by-way", "/open/link");
        assert_eq!(tree.fault("/open/link").0, "open");
        assert_eq!(tree.fault("/bin/by-way").0, "open");
        tree.link("bin/loop", "loop");
        assert!(matches!(tree.fault("/bin/loop").1, ProgramFault::Links));
    }

    #[test]
    fn a_program_in_the_served_folder_is_refused_however_it_is_reached() {
        let tree = Tree::new();
        fs::create_dir(tree.top.path().join("served/deep")).unwrap();
        tree.program("served/deep/uploaded", 0o755);
        tree.link("bin/innocent", "../served/deep/uploaded");
        tree.link("bin/folder", "/served/deep");
        for name in ["/served/deep/uploaded", "/bin/innocent", "/bin/folder/uploaded"] {
            let (at, fault) = tree.fault(name);
            assert!(at == "served" && matches!(fault, ProgramFault::Served), "{at} {fault}");
        }
    }
}
