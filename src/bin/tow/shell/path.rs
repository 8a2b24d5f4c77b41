//! Where a word leads from the current folder: by names alone, and never above the root.

use towpath::wire::{PathError, RemotePath};

/// A place on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: RemotePath,
    /// It was written so that only a folder can be meant.
    pub(super) is_dir: bool,
    /// It was written so that what is in the folder is meant, where it makes a difference.
    pub(super) is_content: bool,
}

/// The place that `word` names, seen from `current`. `..` takes a name away: nothing that is sent
/// ever has one, and above the root there is only the root.
///
/// # Errors
/// [`PathError`], for what can't be sent.
pub(super) fn join(current: &RemotePath, word: &[u8]) -> Result<Place, PathError> {
    let mut names: Vec<&[u8]> = Vec::new();
    let absolute = word.first() == Some(&b'/');
    let from = if absolute { &b""[..] } else { current.as_bytes() };
    let slash = |byte: &u8| *byte == b'/';
    for name in from.split(slash).chain(word.split(slash)) {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    let path = RemotePath::new(&names.join(&b'/'))?;
    let last = word.rsplit(slash).next().unwrap_or_default();
    let is_dir = path.is_root() || matches!(last, b"" | b"." | b"..");
    let is_content = path.is_root() || matches!(last, b"." | b"..");
    Ok(Place { path, is_dir, is_content })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_lead_where_their_names_say() {
        for (current, word, expected, is_dir) in [
            ("", "a", "a", false),
            ("a/b", "c", "a/b/c", false),
            ("a/b", "/c", "c", false),
            ("a/b", "..", "a", true),
            ("a/b", "../c", "a/c", false),
            ("a/b", "../../../../c", "c", false),
            ("a", "/../..", "", true),
            ("a/b", ".", "a/b", true),
            ("a/b", "", "a/b", true),
            ("a/b", "c/", "a/b/c", true),
            ("a", "x/../y//./z", "a/y/z", false),
            ("a", "..b/...", "a/..b/...", false),
        ] {
            let current = RemotePath::new(current.as_bytes()).unwrap();
            let place = join(&current, word.as_bytes()).unwrap();
            assert_eq!(place.path.as_bytes(), expected.as_bytes(), "{current} {word}");
            assert_eq!(place.is_dir, is_dir, "{current} {word}");
        }
    }

    #[test]
    fn what_can_not_be_sent_is_refused() {
        let root = RemotePath::new(b"").unwrap();
        assert_eq!(join(&root, b"a\0"), Err(PathError::Nul));
        assert_eq!(join(&root, &[b'a'; 256]), Err(PathError::TooLong));
        assert_eq!(join(&root, b"a/../.tow/x"), Err(PathError::Reserved));
    }

    proptest! {
        #[test]
        fn no_word_is_refused_for_the_dots_in_it(
            current in "[a./]{0,12}", word in "[a./]{0,20}",
        ) {
            let root = RemotePath::new(b"").unwrap();
            let current = join(&root, current.as_bytes()).unwrap();
            prop_assert!(join(&current.path, word.as_bytes()).is_ok());
        }
    }
}
