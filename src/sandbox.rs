//! The second layer of the jail: Landlock, where the kernel has it.
//!
//! The first layer resolves every path beneath a directory handle (see `store`). This one holds
//! whatever the first one may miss, and the programs of actions as well: after it, this process
//! and all that it starts can open nothing but what is listed here. See landlock(7).

use std::{fmt, path::PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};

/// What the process may touch from now on.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    /// Files and folders that may be read and changed.
    pub writable: Vec<PathBuf>,
    /// Files and folders that may be read.
    pub readable: Vec<PathBuf>,
    /// Whether programs are run: then those of the system, and what they need, may be read and
    /// executed, and connections made.
    pub programs: bool,
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
}

/// Where programs, and what they need to run, are.
const SYSTEM: [&str; 12] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/proc", "/sys",
    "/run",
];

/// What the store itself looks at.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Sandbox {
    /// Confines this thread, and the threads and processes that it starts from now on, for good.
    /// To be called before any thread is started.
    ///
    /// # Errors
    /// A listed path can't be opened, or the kernel has Landlock and refuses it all the same.
    pub fn enter(&self) -> Result<Layer, SandboxError> {
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
        let ruleset =
            if self.programs { ruleset } else { ruleset.handle_access(AccessNet::ConnectTcp)? };
        let mut rules = ruleset.create()?;
        for path in &self.writable {
            let access = AccessFs::from_all(abi) & !AccessFs::Execute;
            rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
        }
        for path in &self.readable {
            let access = AccessFs::ReadFile | AccessFs::ReadDir;
            rules = add_if_there(rules, path.as_os_str(), access)?;
        }
        rules = add_if_there(rules, BOOT_ID, AccessFs::ReadFile)?;
        let null = AccessFs::ReadFile | AccessFs::WriteFile;
        rules = add_if_there(rules, "/dev/null", null)?;
        if self.programs {
            let run = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
            for path in SYSTEM {
                rules = add_if_there(rules, path, run)?;
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
    path: impl AsRef<std::ffi::OsStr>,
    access: impl Into<landlock::BitFlags<AccessFs>>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(fd) = PathFd::new(path.as_ref()) else { return Ok(rules) };
    let is_dir = std::path::Path::new(path.as_ref()).is_dir();
    let of_a_file = AccessFs::from_file(ABI::V5);
    let access = access.into();
    let access = if is_dir { access } else { access & of_a_file };
    rules.add_rule(PathBeneath::new(fd, access))
}
