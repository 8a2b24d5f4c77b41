//! What the configuration says of an action, and whether it makes sense.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Deserialize;

use super::{Action, Parameter, PatternError, ProgramError, Word, program};
use crate::limits::{
    ACTION_DESCRIPTION_BYTES_MAX, ACTION_NAME_BYTES_MAX, ACTION_OUTPUT_BYTES, ACTION_RUNNING,
    ACTION_TIMEOUT, ACTION_TIMEOUT_MAX, ACTION_WORDS_MAX, ACTIONS_RUNNING_MAX,
};

/// `[actions.NAME]` of the configuration, as it was written: [`Actions::load`](super::Actions::load)
/// checks it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ActionConfig {
    /// The program, an absolute path or a name to be found in [`PATH`](super::PATH), and its
    /// arguments. An element that is `{name}` as a whole stands for the argument of that name.
    pub run: Vec<String>,
    /// For each placeholder, the pattern that its whole argument has to match.
    #[serde(default)]
    pub arguments: BTreeMap<String, String>,
    /// Who may run it. Absent: everybody who may run actions.
    #[serde(default)]
    pub users: Option<Vec<String>>,
    /// How long it may run, such as `10s`. Absent: [`ACTION_TIMEOUT`].
    #[serde(default)]
    pub timeout: Option<String>,
    /// How many bytes it may put out, both streams together. Absent: [`ACTION_OUTPUT_BYTES`].
    #[serde(default)]
    pub max_output: Option<u64>,
    /// How often it may run at the same time. Absent: [`ACTION_RUNNING`].
    #[serde(default)]
    pub max_running: Option<usize>,
    /// What it does, for people.
    #[serde(default)]
    pub description: String,
}

/// An action that can't be taken as it was written.
#[derive(Debug, thiserror::Error)]
#[error("actions.{action}: {key}: {why}", action = action.escape_debug())]
pub struct LoadError {
    /// The action's name.
    pub action: String,
    /// The key that is wrong.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: ConfigFault,
}

/// What is wrong with an action.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// A name that is empty, too long, or has other characters.
    #[error("a name has 1 to {ACTION_NAME_BYTES_MAX} characters of a-z 0-9 _ -, not {0:?}")]
    Name(String),
    /// `run` is empty or too long.
    #[error("it has 1 to {ACTION_WORDS_MAX} elements, not {0}")]
    Words(usize),
    /// The program can't be an argument.
    #[error("the program can't be a placeholder")]
    PlaceholderFirst,
    /// A placeholder inside of an element.
    #[error("{{{0}}} has to be an element of its own")]
    PlaceholderInside(String),
    /// A placeholder without a pattern.
    #[error("{{{0}}} has no pattern in `arguments`")]
    NoPattern(String),
    /// A pattern without a placeholder.
    #[error("{{{0}}} does not stand in `run`")]
    NoPlaceholder(String),
    /// A pattern that is none.
    #[error("{name}: {error}")]
    Pattern {
        /// The placeholder.
        name: String,
        /// Why.
        error: PatternError,
    },
    /// NUL can't be handed to a program.
    #[error("it has a NUL character")]
    Nul,
    /// The program is absent or not to be trusted.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// An empty list of users.
    #[error("nobody is listed: leave it out for everybody")]
    NoUsers,
    /// Not a time, or out of bounds.
    #[error("it is a time from 1ms to {max}, such as 10s, not {0:?}", max = humantime::format_duration(ACTION_TIMEOUT_MAX))]
    Time(String),
    /// A number out of bounds.
    #[error("it is a number from 1 to {max}, not {given}")]
    Number {
        /// What was given.
        given: u64,
        /// The highest.
        max: u64,
    },
    /// More than a line of text.
    #[error("it is one line of at most {ACTION_DESCRIPTION_BYTES_MAX} bytes")]
    Description,
}

/// Checks one action, and finds its program.
pub(super) fn load(name: &str, config: &ActionConfig, served: &Path) -> Result<Action, LoadError> {
    let key =
        |key: &'static str| move |why: ConfigFault| LoadError { action: name.to_owned(), key, why };
    if !is_name(name) {
        return Err(key("name")(ConfigFault::Name(name.to_owned())));
    }
    let (first, rest) = program_and_words(&config.run).map_err(key("run"))?;
    let names = placeholders(rest).map_err(key("run"))?;
    let parameters = parameters(&names, &config.arguments).map_err(key("arguments"))?;
    let as_word = |text: &String| {
        let index = names.iter().position(|name| Some(*name) == placeholder(text));
        index.map_or_else(|| Word::Literal(text.clone()), Word::Parameter)
    };
    let words = rest.iter().map(as_word).collect();
    if config.users.as_ref().is_some_and(Vec::is_empty) {
        return Err(key("users")(ConfigFault::NoUsers));
    }
    let timeout = timeout(config.timeout.as_deref()).map_err(key("timeout"))?;
    let max_output = config.max_output.unwrap_or(ACTION_OUTPUT_BYTES);
    number(max_output, u64::MAX).map_err(key("max-output"))?;
    let max_running = config.max_running.unwrap_or(ACTION_RUNNING);
    number(max_running as u64, ACTIONS_RUNNING_MAX as u64).map_err(key("max-running"))?;
    let description = config.description.clone();
    if description.len() > ACTION_DESCRIPTION_BYTES_MAX || description.contains(char::is_control) {
        return Err(key("description")(ConfigFault::Description));
    }
    let program = program::find(first, served).map_err(|error| key("run")(error.into()))?;
    let users = config.users.clone();
    Ok(Action { program, words, parameters, users, timeout, max_output, max_running, description })
}

fn program_and_words(run: &[String]) -> Result<(&String, &[String]), ConfigFault> {
    let Some((first, rest)) = run.split_first().filter(|_| run.len() <= ACTION_WORDS_MAX) else {
        return Err(ConfigFault::Words(run.len()));
    };
    if run.iter().any(|word| word.contains('\0')) {
        return Err(ConfigFault::Nul);
    }
    if placeholder(first).is_some() {
        return Err(ConfigFault::PlaceholderFirst);
    }
    inside(first)?;
    Ok((first, rest))
}

/// The names of the placeholders, each once, in the order in which they first stand there.
fn placeholders(words: &[String]) -> Result<Vec<&str>, ConfigFault> {
    let mut names = Vec::new();
    for word in words {
        match placeholder(word) {
            Some(name) if names.contains(&name) => {}
            Some(name) => names.push(name),
            None => inside(word)?,
        }
    }
    Ok(names)
}

/// Each placeholder has its pattern, and each pattern its placeholder.
fn parameters(
    names: &[&str],
    patterns: &BTreeMap<String, String>,
) -> Result<Vec<Parameter>, ConfigFault> {
    if let Some(name) = patterns.keys().find(|name| !names.contains(&name.as_str())) {
        let known = is_name(name);
        let name = name.clone();
        return Err(if known { ConfigFault::NoPlaceholder(name) } else { ConfigFault::Name(name) });
    }
    let parameter = |name: &&str| {
        let name = (*name).to_owned();
        let Some(pattern) = patterns.get(&name) else {
            return Err(ConfigFault::NoPattern(name));
        };
        Parameter::new(&name, pattern).map_err(|error| ConfigFault::Pattern { name, error })
    };
    names.iter().map(parameter).collect()
}

/// The name in `{name}`, if that is the whole word. What stands between other brackets is text:
/// `{}` and `{ print $1 }` are.
fn placeholder(word: &str) -> Option<&str> {
    let name = word.strip_prefix('{')?.strip_suffix('}')?;
    is_name(name).then_some(name)
}

/// Refuses a placeholder that is only a part of a word: it would not be filled in.
fn inside(word: &str) -> Result<(), ConfigFault> {
    let names = word.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    match names.into_iter().find(|name| is_name(name)) {
        Some(name) => Err(ConfigFault::PlaceholderInside(name.to_owned())),
        None => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=ACTION_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

fn timeout(text: Option<&str>) -> Result<Duration, ConfigFault> {
    let Some(text) = text else {
        return Ok(ACTION_TIMEOUT);
    };
    let time = humantime::parse_duration(text).ok();
    let time = time.filter(|time| (Duration::from_millis(1)..=ACTION_TIMEOUT_MAX).contains(time));
    time.ok_or_else(|| ConfigFault::Time(text.to_owned()))
}

fn number(given: u64, max: u64) -> Result<(), ConfigFault> {
    if (1..=max).contains(&given) { Ok(()) } else { Err(ConfigFault::Number { given, max }) }
}
