//! Named actions: commands that the operator listed and users run by name.
//!
//! Pure but for `program`, which looks at the programs' files: nothing here starts a process.
//! [`ActionConfig`] is what the configuration says, [`Actions`] what came out of checking it, and
//! [`Prepared`] one command with its arguments filled in, ready for
//! [`Children::spawn`](crate::server::child::Children::spawn).
//!
//! **Invariants**
//! - There is no shell between a user and a program, unless the operator's own list names one.
//! - A user's bytes are whole elements of the argument vector, never a part of one, and only where
//!   the operator wrote a placeholder with a pattern for the whole argument.
//! - An argument is no option, unless its pattern begins with `-`.
//! - A user learns nothing of an action that he may not run, not even that it exists.

mod argument;
mod config;
mod program;

use std::{collections::BTreeMap, ffi::OsString, path::Path, path::PathBuf, time::Duration};

use argument::Parameter;
pub use argument::{ArgumentFault, PatternError};
pub use config::{ActionConfig, ConfigFault, LoadError};
pub use program::{PATH, ProgramError, ProgramFault, check as check_program};

/// The actions of a server, checked.
#[derive(Debug, Default)]
pub struct Actions {
    by_name: BTreeMap<String, Action>,
}

/// One action, checked.
#[derive(Debug)]
struct Action {
    /// Absolute.
    program: PathBuf,
    words: Vec<Word>,
    /// In the order in which they are given.
    parameters: Vec<Parameter>,
    /// Who may run it; `None` for everybody who may run any.
    users: Option<Vec<String>>,
    timeout: Duration,
    max_output: u64,
    max_running: usize,
    description: String,
}

/// One element of the argument vector behind the program.
#[derive(Debug)]
enum Word {
    Literal(String),
    /// What was given for this parameter, by its index.
    Parameter(usize),
}

/// One run of an action, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The action's name.
    pub name: String,
    /// What to execute: an absolute path.
    pub program: PathBuf,
    /// The argument vector behind the program's own name.
    pub arguments: Vec<OsString>,
    /// How long it may run.
    pub timeout: Duration,
    /// How many bytes it may put out, both streams together.
    pub max_output: u64,
    /// How often this action may run at the same time.
    pub max_running: usize,
}

/// What a listing says of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary<'a> {
    /// Its name.
    pub name: &'a str,
    /// The names of its arguments, in the order in which they are given.
    pub arguments: Vec<&'a str>,
    /// What the operator says that it does; may be empty.
    pub description: &'a str,
}

/// Why an action is not run. No byte of the peer is in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is none of that name, or not for this user: which of them is not told.
    #[error("no such action")]
    Unknown,
    /// An argument is not what the operator allows.
    #[error("argument {which}: {why}")]
    Argument {
        /// The operator's name for it, or its number if it is one too many.
        which: String,
        /// What is wrong with it.
        why: ArgumentFault,
    },
}

impl Actions {
    /// Checks what the configuration says, and looks up the programs. `served` is the folder that
    /// users write to: no program may lie in it.
    ///
    /// # Errors
    /// [`LoadError`] names the action and the key that is wrong.
    pub fn load(config: &BTreeMap<String, ActionConfig>, served: &Path) -> Result<Self, LoadError> {
        let load = |(name, config): (&String, &ActionConfig)| {
            Ok((name.clone(), config::load(name, config, served)?))
        };
        Ok(Self { by_name: config.iter().map(load).collect::<Result<_, _>>()? })
    }

    /// Fills in the arguments that `user` gave, in the order in which their placeholders first
    /// stand in `run`.
    ///
    /// # Errors
    /// [`ActionError`].
    pub fn prepare(
        &self,
        user: &str,
        name: &str,
        arguments: &[&[u8]],
    ) -> Result<Prepared, ActionError> {
        let action = self.by_name.get(name).filter(|action| action.is_for(user));
        let action = action.ok_or(ActionError::Unknown)?;
        let given = action.checked(arguments)?;
        let fill = |word: &Word| match word {
            Word::Literal(text) => Some(OsString::from(text)),
            Word::Parameter(index) => given.get(*index).map(OsString::from),
        };
        Ok(Prepared {
            name: name.to_owned(),
            program: action.program.clone(),
            arguments: action.words.iter().filter_map(fill).collect(),
            timeout: action.timeout,
            max_output: action.max_output,
            max_running: action.max_running,
        })
    }

    /// The actions that `user` may run, by name.
    pub fn for_user(&self, user: &str) -> impl Iterator<Item = Summary<'_>> {
        let theirs = self.by_name.iter().filter(move |(_, action)| action.is_for(user));
        theirs.map(|(name, action)| Summary {
            name,
            arguments: action.parameters.iter().map(Parameter::name).collect(),
            description: &action.description,
        })
    }
}

impl Action {
    fn is_for(&self, user: &str) -> bool {
        self.users.as_ref().is_none_or(|users| users.iter().any(|known| known == user))
    }

    /// The arguments as text, each as its pattern wants it, and exactly as many as there are
    /// parameters.
    fn checked<'a>(&self, arguments: &[&'a [u8]]) -> Result<Vec<&'a str>, ActionError> {
        let fault = |which: &str, why| ActionError::Argument { which: which.to_owned(), why };
        if arguments.len() > self.parameters.len() {
            let first_beyond = self.parameters.len() + 1;
            let takes = self.parameters.len();
            return Err(fault(&first_beyond.to_string(), ArgumentFault::TooMany { takes }));
        }
        let check = |(index, parameter): (usize, &Parameter)| {
            let given = arguments.get(index).ok_or(ArgumentFault::Missing);
            given
                .and_then(|bytes| parameter.check(bytes))
                .map_err(|why| fault(parameter.name(), why))
        };
        self.parameters.iter().enumerate().map(check).collect()
    }
}

#[cfg(test)]
mod tests;
