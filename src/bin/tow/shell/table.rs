//! The commands of the shell, in one table: what is run, what is completed, what help says.

use super::{Error, Shell, commands, local, words::Word};
use crate::exit::Exit;

/// A command. A new one is a row here, and a function.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) aliases: &'static [&'static str],
    /// What may stand behind the name.
    usage: &'static str,
    about: &'static str,
    /// The letters that it knows behind a `-`.
    flags: &'static str,
    /// The fewest and the most words that it takes, flags not counted.
    words: (usize, usize),
    pub(super) arguments: Arguments,
    pub(super) run: fn(&mut Shell<'_>, &Call) -> Result<Exit, Error>,
}

/// What the words of a command are, for completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    Nothing,
    Commands,
    Remote,
    RemoteFolders,
    Local,
    LocalFolders,
    /// Names on the server, then perhaps where to put them here.
    Get,
    /// Names here, then perhaps where to put them on the server.
    Put,
}

/// Any number of words.
const MANY: usize = usize::MAX;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "cd",
        aliases: &[],
        usage: "[FOLDER|-]",
        about: "go to a folder on the server; alone to the first one, with - back",
        flags: "",
        words: (0, 1),
        arguments: Arguments::RemoteFolders,
        run: commands::cd,
    },
    Command {
        name: "pwd",
        aliases: &[],
        usage: "",
        about: "say which folder of the server this is",
        flags: "",
        words: (0, 0),
        arguments: Arguments::Nothing,
        run: commands::pwd,
    },
    Command {
        name: "ls",
        aliases: &["dir"],
        usage: "[-l] [NAME...]",
        about: "list folders of the server; -l with kind, size and time",
        flags: "l",
        words: (0, MANY),
        arguments: Arguments::Remote,
        run: commands::ls,
    },
    Command {
        name: "get",
        aliases: &[],
        usage: "[-r] NAME... [HERE]",
        about: "download; goes on where it was; several, and folders with -r, go into HERE",
        flags: "r",
        words: (1, MANY),
        arguments: Arguments::Get,
        run: commands::get,
    },
    Command {
        name: "put",
        aliases: &[],
        usage: "[-rL] NAME... [THERE]",
        about: "upload; goes on where it was; several, and folders with -r, go into THERE; -L links",
        flags: "rL",
        words: (1, MANY),
        arguments: Arguments::Put,
        run: commands::put,
    },
    Command {
        name: "rm",
        aliases: &[],
        usage: "FILE...",
        about: "remove files on the server",
        flags: "",
        words: (1, MANY),
        arguments: Arguments::Remote,
        run: commands::rm,
    },
    Command {
        name: "mv",
        aliases: &[],
        usage: "NAME... TO",
        about: "rename on the server, or move into a folder; replaces a file that is there",
        flags: "",
        words: (2, MANY),
        arguments: Arguments::Remote,
        run: commands::mv,
    },
    Command {
        name: "mkdir",
        aliases: &[],
        usage: "[-p] FOLDER...",
        about: "make folders on the server; -p also those above, and is content with one there",
        flags: "p",
        words: (1, MANY),
        arguments: Arguments::RemoteFolders,
        run: commands::mkdir,
    },
    Command {
        name: "rmdir",
        aliases: &[],
        usage: "FOLDER...",
        about: "remove empty folders on the server",
        flags: "",
        words: (1, MANY),
        arguments: Arguments::RemoteFolders,
        run: commands::rmdir,
    },
    Command {
        name: "stat",
        aliases: &[],
        usage: "NAME...",
        about: "show kind, size and time of names on the server",
        flags: "",
        words: (1, MANY),
        arguments: Arguments::Remote,
        run: commands::stat,
    },
    Command {
        name: "md5",
        aliases: &["md5sum"],
        usage: "FILE...",
        about: "have the server compute the MD5 of whole files",
        flags: "",
        words: (1, MANY),
        arguments: Arguments::Remote,
        run: commands::md5,
    },
    Command {
        name: "run",
        aliases: &[],
        usage: "[ACTION [ARGUMENT...]]",
        about: "run an action on the server; alone say which there are",
        flags: "",
        words: (0, MANY),
        arguments: Arguments::Nothing,
        run: commands::run,
    },
    Command {
        name: "quota",
        aliases: &[],
        usage: "",
        about: "say what you store and may store",
        flags: "",
        words: (0, 0),
        arguments: Arguments::Nothing,
        run: commands::quota,
    },
    Command {
        name: "whoami",
        aliases: &[],
        usage: "",
        about: "say who the server takes you for, and what you may do",
        flags: "",
        words: (0, 0),
        arguments: Arguments::Nothing,
        run: commands::whoami,
    },
    Command {
        name: "lcd",
        aliases: &[],
        usage: "[FOLDER]",
        about: "go to a folder of this machine; alone to your home",
        flags: "",
        words: (0, 1),
        arguments: Arguments::LocalFolders,
        run: local::lcd,
    },
    Command {
        name: "lpwd",
        aliases: &[],
        usage: "",
        about: "say which folder of this machine this is",
        flags: "",
        words: (0, 0),
        arguments: Arguments::Nothing,
        run: local::lpwd,
    },
    Command {
        name: "lls",
        aliases: &[],
        usage: "[-l] [NAME...]",
        about: "list folders of this machine; -l with kind, size and time",
        flags: "l",
        words: (0, MANY),
        arguments: Arguments::Local,
        run: local::lls,
    },
    Command {
        name: "help",
        aliases: &["?"],
        usage: "[COMMAND]",
        about: "say what there is",
        flags: "",
        words: (0, 1),
        arguments: Arguments::Commands,
        run: commands::help,
    },
    Command {
        name: "quit",
        aliases: &["exit", "bye"],
        usage: "",
        about: "leave; Ctrl-D does it too",
        flags: "",
        words: (0, 0),
        arguments: Arguments::Nothing,
        run: commands::quit,
    },
];

/// A command line that was taken apart.
#[derive(Debug)]
pub(super) struct Call {
    flags: Vec<u8>,
    /// What stands behind name and flags.
    pub(super) words: Vec<Word>,
}

impl Call {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags.contains(&flag)
    }

    /// The only word, if there is one.
    pub(super) fn word(&self) -> Option<&Word> {
        self.words.first()
    }
}

impl Command {
    pub(super) fn find(name: &[u8]) -> Option<&'static Self> {
        let is = |own: &str| own.as_bytes() == name;
        COMMANDS.iter().find(|one| is(one.name) || one.aliases.iter().any(|alias| is(alias)))
    }

    /// One line for people.
    pub(super) fn help(&self) -> String {
        format!("{:22} {}", self.synopsis(), self.about)
    }

    fn synopsis(&self) -> String {
        format!("{} {}", self.name, self.usage).trim_end().to_owned()
    }

    /// Takes flags and words apart. Flags stand in front of all words, unquoted; `--` ends them.
    ///
    /// # Errors
    /// [`Error::Usage`] for flags that it does not know, and too few or too many words.
    pub(super) fn parse(&self, words: &[Word]) -> Result<Call, Error> {
        let mut flags = Vec::new();
        let mut rest = words;
        while let [first, behind @ ..] = rest {
            let text = first.bytes();
            if !is_flag(first) {
                break;
            }
            rest = behind;
            if text == b"--" {
                break;
            }
            flags.extend_from_slice(text.get(1..).unwrap_or_default());
        }
        if let Some(&unknown) = flags.iter().find(|flag| !self.flags.as_bytes().contains(flag)) {
            let unknown = crate::show::printable(&[unknown]);
            return Err(Error::Usage(format!(
                "{} knows no -{unknown}; a name that begins with - is written \\-{unknown}: \
                 use {}",
                self.name,
                self.synopsis()
            )));
        }
        let (fewest, most) = self.words;
        if rest.len() < fewest || rest.len() > most {
            let amount = if rest.len() < fewest { "more" } else { "fewer" };
            return Err(Error::Usage(format!(
                "{} needs {amount} words: use {}",
                self.name,
                self.synopsis()
            )));
        }
        Ok(Call { flags, words: rest.to_vec() })
    }
}

/// Whether a word is a flag: a dash alone is none, nor is anything quoted.
pub(super) fn is_flag(word: &Word) -> bool {
    word.begins_with(b'-') && word.chars().len() > 1
}

/// What to say about a name that is no command: the nearest one, if it is near.
pub(super) fn unknown(name: &[u8]) -> Error {
    let shown = crate::show::printable(name);
    if name.first() == Some(&b'!') {
        let text = "commands of this machine can't be run from here";
        return Error::Usage(format!("{shown}: {text}"));
    }
    // Nothing that is much longer than any command is near to one.
    let short = COMMANDS.iter().filter(|one| name.len() <= one.name.len() + 2);
    let near = short.map(|one| (distance(name, one.name.as_bytes()), one.name)).min();
    match near.filter(|&(steps, found)| steps <= 2 && steps < found.len()) {
        Some((_, found)) => Error::Usage(format!("there is no {shown}: did you mean {found}?")),
        None => Error::Usage(format!("there is no {shown}")),
    }
}

/// How many bytes have to be put in, left out, changed or swapped with their neighbour.
fn distance(a: &[u8], b: &[u8]) -> usize {
    // The distances of the beginnings of `a`, the last one first, from all beginnings of `b`.
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    let at = |row: Option<&Vec<usize>>, column: Option<usize>| -> usize {
        column.and_then(|column| row?.get(column).copied()).unwrap_or(usize::MAX / 2)
    };
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let left = at(Some(&row), Some(j)) + 1;
            let above = at(rows.first(), Some(j + 1)) + 1;
            let diagonal = at(rows.first(), Some(j)) + usize::from(from != to);
            let crossed = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            let swapped = at(rows.get(1).filter(|_| crossed), j.checked_sub(1)) + 1;
            row.push(left.min(above).min(diagonal).min(swapped));
        }
        rows.insert(0, row);
        rows.truncate(2);
    }
    at(rows.first(), Some(b.len()))
}

#[cfg(test)]
mod tests {
    use super::{super::words::split, *};

    fn parse(line: &str) -> Result<Call, Error> {
        let words = split(line.as_bytes(), false).unwrap();
        Command::find(&words[0].bytes()).unwrap().parse(&words[1..])
    }

    #[test]
    fn every_command_of_the_issue_is_there_once() {
        for name in [
            "cd", "lcd", "pwd", "lpwd", "ls", "lls", "get", "put", "mkdir", "rmdir", "rm", "mv",
            "md5", "help", "quit", "exit",
        ] {
            assert!(Command::find(name.as_bytes()).is_some(), "{name}");
        }
        let mut names: Vec<_> =
            COMMANDS.iter().flat_map(|one| one.aliases.iter().chain([&one.name])).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn help_is_one_line_each() {
        for one in COMMANDS {
            let help = one.help();
            assert!(help.starts_with(one.name) && !help.contains('\n'), "{help}");
            assert!(help.chars().count() <= 110, "{help}");
        }
    }

    #[test]
    fn flags_stand_in_front_and_everything_else_is_a_name() {
        assert!(parse("ls -l").unwrap().has(b'l'));
        assert!(!parse("ls a -l").unwrap().has(b'l'));
        for line in ["rm -- -r", r"rm \-r", "rm '-r'", "rm ./-r"] {
            assert_eq!(parse(line).unwrap().words.len(), 1, "{line}");
        }
        assert_eq!(parse("cd -").unwrap().words.len(), 1);
        assert!(parse("rm -rf x").is_err() && parse("ls -lx").is_err());
        assert!(parse("get").is_err() && parse("cd a b").is_err() && parse("pwd x").is_err());
    }

    #[test]
    fn the_nearest_command_is_suggested_if_it_is_near() {
        for (name, said) in [
            ("gte", "get"),
            ("mkdri", "mkdir"),
            ("lcs", "lcd"),
            ("quti", "quit"),
            ("rmdi", "rmdir"),
        ] {
            let error = unknown(name.as_bytes()).to_string();
            assert!(error.contains(&format!("did you mean {said}?")), "{error}");
        }
        for name in ["frobnicate", "x", "", "\u{1b}"] {
            let error = unknown(name.as_bytes()).to_string();
            assert!(!error.contains("mean") && !error.contains('\u{1b}'), "{error}");
        }
        assert!(unknown(b"!ls").to_string().contains("can't be run"));
    }
}
