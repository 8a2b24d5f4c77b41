//! The second layer of the jail: Landlock, where the kernel has it.
//!
//! The first layer resolves every path beneath a directory handle (see `store`). This one holds
//! whatever the first one may miss, and the programs of actions as well: after it, this process
//! and all that it starts can open nothing but what is listed here. See landlock(7).

use std::{
    ffi::OsStr,
    fmt, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};

/// What the process may touch from now on.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    /// Files and folders that may be read and changed.
    pub writable: Vec<PathBuf>,
    /// Files and folders that may be read.
    pub readable: Vec<PathBuf>,
    /// Whether programs are run, and the folders of those that are not the system's: then these, and
    /// the programs of the system with what they need, may be read and executed, and connections made.
    pub programs: Option<Vec<PathBuf>>,
    /// Ports that may be listened on.
    pub ports: Vec<u16>,
}

/// How far the kernel holds us to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// All of it.
    On,
    /// What this kernel knows of it.
    Partly,
    /// It knows nothing of it.
    Off,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Partly => "on, as far as this kernel has it",
            Self::Off => "off: this kernel does not have it",
        })
    }
}

/// The sandbox can't be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Landlock.
    #[error("Landlock: {0}")]
    Rules(#[from] RulesetError),
    /// A path that was to be left open.
    #[error("Landlock: {0}")]
    Path(#[from] PathFdError),
    /// `no_new_privs`.
    #[error("can't give up new privileges: {0}")]
    Privileges(#[from] io::Error),
}

/// Where programs, and what they need to run, are.
const SYSTEM: [&str; 12] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/proc", "/sys",
    "/run",
];

/// What nobody needs in a folder of files: to execute them, to make devices, to command devices.
const NEVER: [AccessFs; 4] =
    [AccessFs::Execute, AccessFs::MakeChar, AccessFs::MakeBlock, AccessFs::IoctlDev];

/// What the store itself looks at, and what keeps the processes of actions.
const LOOKED_AT: [&str; 3] =
    ["/proc/sys/kernel/random/boot_id", "/proc/meminfo", "/proc/self/status"];

/// A rule is about an inode, and those of `/proc` are made anew once nobody has them open and memory
/// is short: what was allowed would be forbidden then.
static KEPT: OnceLock<Vec<PathFd>> = OnceLock::new();

impl Sandbox {
    /// Confines this thread, and the threads and processes that it starts from now on, for good.
    /// To be called before any thread is started. Programs with the set-user-id bit gain nothing by it
    /// any more, with Landlock or without.
    ///
    /// # Errors
    /// A listed path can't be opened, or the kernel has Landlock and refuses it all the same.
    pub fn enter(&self) -> Result<Layer, SandboxError> {
        rustix::thread::set_no_new_privs(true).map_err(io::Error::from)?;
        // The first version lets nobody rename from one folder to another: no file could ever be
        // made visible.
        let has_rename = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::Refer)
            .is_ok();
        if !has_rename {
            return Ok(Layer::Off);
        }
        let abi = ABI::V5;
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi))?;
        let ruleset = ruleset.handle_access(AccessNet::BindTcp)?;
        let ruleset = match self.programs {
            Some(_) => ruleset,
            None => ruleset.handle_access(AccessNet::ConnectTcp)?,
        };
        let mut rules = ruleset.create()?;
        let change = NEVER.into_iter().fold(AccessFs::from_all(abi), |access, it| access & !it);
        let look = AccessFs::ReadFile | AccessFs::ReadDir;
        let run = look | AccessFs::Execute;
        for path in &self.writable {
            rules = add(rules, path, PathFd::new(path)?, change)?;
        }
        for path in &self.readable {
            rules = add(rules, path, PathFd::new(path)?, look)?;
        }
        // Opened by an earlier call, they are the same.
        KEPT.get_or_init(|| LOOKED_AT.iter().filter_map(|path| PathFd::new(path).ok()).collect());
        for path in LOOKED_AT {
            rules = add_if_there(rules, path, AccessFs::ReadFile)?;
        }
        rules = add_if_there(rules, "/dev/null", AccessFs::ReadFile | AccessFs::WriteFile)?;
        if let Some(folders) = &self.programs {
            for folder in folders.iter().map(AsRef::as_ref).chain(SYSTEM.map(OsStr::new)) {
                rules = add_if_there(rules, folder, run)?;
            }
            rules = add_if_there(rules, "/dev/zero", AccessFs::ReadFile)?;
            rules = add_if_there(rules, "/dev/urandom", AccessFs::ReadFile)?;
        }
        for &port in &self.ports {
            rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
        }
        Ok(match rules.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced => Layer::On,
            RulesetStatus::PartiallyEnforced => Layer::Partly,
            RulesetStatus::NotEnforced => Layer::Off,
        })
    }
}

fn add_if_there(
    rules: RulesetCreated,
    path: impl AsRef<OsStr>,
    access: impl Into<BitFlags<AccessFs>>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path.as_ref()) {
        Ok(fd) => add(rules, Path::new(path.as_ref()), fd, access),
        Err(_) => Ok(rules),
    }
}

/// A file is given only what makes sense for one.
fn add(
    rules: RulesetCreated,
    path: &Path,
    fd: PathFd,
    access: impl Into<BitFlags<AccessFs>>,
) -> Result<RulesetCreated, RulesetError> {
    let access = access.into();
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V5) };
    rules.add_rule(PathBeneath::new(fd, access))
}
