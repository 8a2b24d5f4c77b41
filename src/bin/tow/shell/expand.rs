//! Words with patterns in them, as the names that are there.

use super::{
    Error,
    glob::{Glob, is_glob},
    words::{Char, Word},
};

/// More names are not worked on at once.
const MATCHES_MAX: usize = 100_000;

/// A name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// As it was written, with the names that match in the place of the patterns.
    pub(super) path: Vec<u8>,
    /// What it is, if a listing said so: nobody looked at what was written without a pattern.
    pub(super) kind: Option<char>,
}

/// Gives each name of a folder, and its kind, to whoever asks.
pub(super) type List<'a> = dyn FnMut(&[u8], &mut dyn FnMut(&[u8], char)) -> Result<(), Error> + 'a;

/// All names that the word stands for, sorted. `list` is asked only for folders in which a name
/// has to be looked for.
///
/// # Errors
/// Those of the first listing; that nothing matches; that too much does.
pub(super) fn expand(word: &Word, list: &mut List<'_>) -> Result<Vec<Found>, Error> {
    if !is_glob(word.chars()) {
        return Ok(vec![Found { path: word.bytes(), kind: None }]);
    }
    let names: Vec<&[Char]> = word.chars().split(|c| c.byte == b'/').collect();
    let mut found = vec![Found { path: Vec::new(), kind: Some('d') }];
    let mut looked = false;
    for (index, name) in names.iter().enumerate() {
        let bytes: Vec<u8> = name.iter().map(|c| c.byte).collect();
        if bytes.is_empty() {
            // A slash at the beginning is the root, one at the end means folders only.
            found.retain(may_hold_names);
            if index == 0 || index + 1 == names.len() {
                found.iter_mut().for_each(|one| one.path.push(b'/'));
            }
        } else if is_glob(name) || (looked && bytes != b"." && bytes != b"..") {
            found = look(&found, &Glob::new(name), looked, list)?;
            looked = true;
        } else {
            found.retain(may_hold_names);
            found.iter_mut().for_each(|one| one.path = below(&one.path, &bytes));
        }
    }
    if found.is_empty() {
        return Err(Error::nothing_matches(&word.bytes()));
    }
    Ok(found)
}

/// The names that match, in each of these folders.
fn look(
    folders: &[Found],
    glob: &Glob,
    looked: bool,
    list: &mut List<'_>,
) -> Result<Vec<Found>, Error> {
    let mut next = Vec::new();
    for folder in folders.iter().filter(|one| may_hold_names(one)) {
        let mut keep = |name: &[u8], kind: char| {
            if next.len() <= MATCHES_MAX && glob.matches(name) {
                next.push(Found { path: below(&folder.path, name), kind: Some(kind) });
            }
        };
        match list(&folder.path, &mut keep) {
            // A name that only might have been a folder, or that may not be looked into.
            Err(error) if looked && !error.ends_everything() => {}
            listed => listed?,
        }
        if next.len() > MATCHES_MAX {
            return Err(Error::Usage(format!("more than {MATCHES_MAX} names match")));
        }
    }
    next.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(next)
}

/// A folder, or a link, which may lead to one.
fn may_hold_names(one: &Found) -> bool {
    matches!(one.kind, None | Some('d' | 'l'))
}

fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if folder.is_empty() || folder.ends_with(b"/") { b"" } else { b"/" };
    [folder, slash, name].concat()
}

#[cfg(test)]
mod tests {
    use super::{super::words::split, *};

    /// Paths of a small tree; those of folders end with a slash.
    const TREE: &[&str] =
        &["a.txt", "b.txt", ".hidden", "d/", "d/x.txt", "d/y", "e/", "e/x.txt", "e/f/", "*odd"];

    fn list(dir: &[u8], each: &mut dyn FnMut(&[u8], char)) -> Result<(), Error> {
        let dir = std::str::from_utf8(dir).unwrap().trim_matches('/');
        let dir = if dir.ends_with("..") { "" } else { dir };
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        for name in TREE.iter().filter_map(|path| path.strip_prefix(&prefix)) {
            let (name, kind) = name.strip_suffix('/').map_or((name, 'f'), |name| (name, 'd'));
            if !name.is_empty() && !name.contains('/') {
                each(name.as_bytes(), kind);
            }
        }
        Ok(())
    }

    fn names(word: &str) -> Vec<String> {
        let word = split(word.as_bytes(), false).unwrap().remove(0);
        match expand(&word, &mut list) {
            Ok(found) => {
                found.into_iter().map(|one| String::from_utf8(one.path).unwrap()).collect()
            }
            Err(error) => vec![format!("! {error}")],
        }
    }

    #[test]
    fn patterns_become_the_names_that_are_there() {
        for (word, expected) in [
            ("plain", &["plain"][..]),
            ("*.txt", &["a.txt", "b.txt"]),
            ("/*.txt", &["/a.txt", "/b.txt"]),
            ("?/x.txt", &["d/x.txt", "e/x.txt"]),
            ("*/y", &["d/y"]),
            ("*/", &["d/", "e/"]),
            ("*/*/", &["e/f/"]),
            ("d//*", &["d/x.txt", "d/y"]),
            ("d/../[ab].txt", &["d/../a.txt", "d/../b.txt"]),
            ("*/../a.txt", &["d/../a.txt", "e/../a.txt"]),
            (".h*", &[".hidden"]),
            (r"\**", &["*odd"]),
            ("'*.txt'", &["*.txt"]),
        ] {
            assert_eq!(names(word), expected, "{word}");
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        for word in ["*.jpg", "*/nothing", "a.txt/*x", "*.txt/"] {
            assert!(names(word)[0].contains("matches nothing"), "{word}");
        }
    }

    #[test]
    fn too_many_names_are_refused() {
        let word = split(b"*", false).unwrap().remove(0);
        let mut endless = |_: &[u8], each: &mut dyn FnMut(&[u8], char)| {
            (0..MATCHES_MAX + 10).for_each(|_| each(b"x", 'f'));
            Ok(())
        };
        assert!(expand(&word, &mut endless).unwrap_err().to_string().contains("more than"));
    }
}
