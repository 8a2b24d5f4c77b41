//! What Tab completes: which part of the line, with which kind of names, and how they are written.

use super::{
    table::{Arguments, COMMANDS, Command, is_flag},
    words::{self, Open, Style, Word},
};
use crate::show::printable;

/// More are not offered: nobody reads them.
const CANDIDATES_MAX: usize = 1000;

/// What is to be completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Where the word begins, in bytes of the line.
    pub(super) start: usize,
    pub(super) wanted: Wanted,
    /// The folder in which the names are, as it was written, up to its last slash.
    pub(super) folder: Vec<u8>,
    /// It begins with a `~` that stands for the home.
    pub(super) home: bool,
    /// What the names begin with.
    prefix: Vec<u8>,
    style: Style,
}

/// Which names come into question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Commands,
    Names { remote: bool, local: bool, only_folders: bool },
}

/// A name that could stand there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) shown: String,
    pub(super) written: String,
}

/// What Tab asks for at the end of `line`, which is what stands before the cursor.
pub(super) fn request(line: &str) -> Option<Request> {
    let scan = words::scan(line.as_bytes(), false).ok()?;
    let mut before: Vec<Word> = Vec::new();
    let (mut start, mut word) = (line.len(), Word::default());
    for (at, one) in scan.words {
        before.push(std::mem::replace(&mut word, one));
        start = at;
    }
    if !scan.in_word {
        before.push(std::mem::take(&mut word));
        start = line.len();
    }
    // In front of the first word stands the empty one that this began with.
    before.remove(0);
    let bytes = word.bytes();
    let cut = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let style = match line.as_bytes().get(start) {
        Some(b'"') => Style::Double,
        Some(b'\'') => Style::Single,
        _ if scan.open == Open::Double => Style::Double,
        _ => Style::Bare,
    };
    let (folder, prefix) = bytes.split_at(cut);
    let (folder, prefix) = (folder.to_vec(), prefix.to_vec());
    let home = word.begins_with(b'~') && folder.starts_with(b"~/");
    let wanted = wanted(&before)?;
    Some(Request { start, wanted, folder, home, prefix, style })
}

/// What comes behind these words.
fn wanted(before: &[Word]) -> Option<Wanted> {
    let [command, words @ ..] = before else { return Some(Wanted::Commands) };
    let first = words.iter().all(is_flag);
    let names = |remote, local| Some(Wanted::Names { remote, local, only_folders: false });
    let folders = |remote, local| Some(Wanted::Names { remote, local, only_folders: true });
    match Command::find(&command.bytes())?.arguments {
        Arguments::Nothing => None,
        Arguments::Commands => Some(Wanted::Commands),
        Arguments::Remote => names(true, false),
        Arguments::RemoteFolders => folders(true, false),
        Arguments::Local => names(false, true),
        Arguments::LocalFolders => folders(false, true),
        // The last word may be where to; nobody knows yet which is the last.
        Arguments::Get => names(true, !first),
        Arguments::Put => names(!first, true),
    }
}

impl Request {
    /// The commands that fit.
    pub(super) fn commands(&self) -> Vec<Candidate> {
        let fits = |name: &&str| name.as_bytes().starts_with(&self.prefix);
        let names = COMMANDS.iter().map(|one| one.name).filter(fits);
        names
            .map(|name| Candidate { shown: name.to_owned(), written: format!("{name} ") })
            .collect()
    }

    /// The names that fit, of those that are in the folder: each with whether it is a folder.
    /// Hidden ones only for who asks for them.
    pub(super) fn names(&self, there: impl IntoIterator<Item = (Vec<u8>, bool)>) -> Vec<Candidate> {
        let Wanted::Names { only_folders, .. } = self.wanted else { return Vec::new() };
        let fits = |(name, is_dir): &(Vec<u8>, bool)| {
            name.starts_with(&self.prefix)
                && (*is_dir || !only_folders)
                && (!name.starts_with(b".") || self.prefix.starts_with(b"."))
        };
        let mut found: Vec<_> = there.into_iter().filter(fits).collect();
        found.sort_unstable();
        found.dedup();
        found.truncate(CANDIDATES_MAX);
        found.iter().map(|(name, is_dir)| self.candidate(name, *is_dir)).collect()
    }

    fn candidate(&self, name: &[u8], is_dir: bool) -> Candidate {
        let (slash, space) = if is_dir { ("/", "") } else { ("", " ") };
        let tilde = if self.home { "~" } else { "" };
        let folder = self.folder.get(tilde.len()..).unwrap_or_default();
        let whole = [folder, name, slash.as_bytes()].concat();
        // More can follow behind a folder, inside of the same quotes.
        let written = words::escape(&whole, self.style, !is_dir);
        let shown = format!("{}{slash}", printable(name));
        Candidate { shown, written: format!("{tilde}{written}{space}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Request {
        request(line).unwrap_or_else(|| panic!("nothing is asked for by {line:?}"))
    }

    #[test]
    fn the_place_in_the_line_says_what_is_wanted() {
        let remote = Wanted::Names { remote: true, local: false, only_folders: false };
        let local = Wanted::Names { remote: false, local: true, only_folders: false };
        let either = Wanted::Names { remote: true, local: true, only_folders: false };
        let folders = Wanted::Names { remote: true, local: false, only_folders: true };
        for (line, wanted, start, folder, prefix) in [
            ("", Wanted::Commands, 0, "", ""),
            ("  ge", Wanted::Commands, 2, "", "ge"),
            ("help g", Wanted::Commands, 5, "", "g"),
            ("get ", remote, 4, "", ""),
            ("get a/b", remote, 4, "a/", "b"),
            ("get a b", either, 6, "", "b"),
            ("put ", local, 4, "", ""),
            ("put x y", either, 6, "", "y"),
            ("ls -l d", remote, 6, "", "d"),
            ("cd /x/", folders, 3, "/x/", ""),
            (r"get my\ fi", remote, 4, "", "my fi"),
            ("get \"my fi", remote, 4, "", "my fi"),
            ("get 'my d/fi", remote, 4, "my d/", "fi"),
            ("get a\\", remote, 4, "", "a"),
        ] {
            let asked = ask(line);
            assert_eq!((asked.wanted, asked.start), (wanted, start), "{line}");
            assert_eq!(asked.folder, folder.as_bytes(), "{line}");
            assert_eq!(asked.prefix, prefix.as_bytes(), "{line}");
        }
        for line in ["pwd ", "frob x", "quit x", "get $'\\q"] {
            assert_eq!(request(line), None, "{line}");
        }
    }

    #[test]
    fn names_are_written_in_the_way_the_word_began() {
        for (line, name, is_dir, written) in [
            ("get m", "my file", false, r"my\ file "),
            ("get \"m", "my file", false, "\"my file\" "),
            ("get 'd/m", "my file", false, "'d/my file' "),
            ("get m", "my dir", true, r"my\ dir/"),
            ("get \"m", "my dir", true, "\"my dir/"),
            ("get m", "m\u{1b}[0m", false, r"$'m\x1b[0m' "),
            ("put ~/m", "my file", false, r"~/my\ file "),
            (r"put \~/m", "my", false, r"\~/my "),
        ] {
            let found = ask(line).names([(name.as_bytes().to_vec(), is_dir)]);
            assert_eq!(found.len(), 1, "{line}");
            assert_eq!(found[0].written, written, "{line}");
            assert!(!found[0].shown.contains('\u{1b}'));
        }
    }

    #[test]
    fn only_what_fits_is_offered_sorted_and_not_too_much_of_it() {
        let names = |line: &str, there: &[(&str, bool)]| -> Vec<String> {
            let there = there.iter().map(|(name, is_dir)| (name.as_bytes().to_vec(), *is_dir));
            ask(line).names(there).into_iter().map(|one| one.shown).collect()
        };
        let there = [("b", false), ("a", true), (".h", false), ("ab", false), ("a", true)];
        assert_eq!(names("get ", &there), ["a/", "ab", "b"]);
        assert_eq!(names("get a", &there), ["a/", "ab"]);
        assert_eq!(names("get .", &there), [".h"]);
        assert_eq!(names("cd ", &there), ["a/"]);
        let many = (0..100_000).map(|n| (format!("{n}").into_bytes(), false));
        assert_eq!(ask("get ").names(many).len(), CANDIDATES_MAX);
        let commands: Vec<String> = ask("m").commands().into_iter().map(|one| one.shown).collect();
        assert_eq!(commands, ["mv", "mkdir", "md5"]);
    }
}
