//! The arguments of a command: which there can be, and what they look like.

use super::{
    command::{Command, CommandError, DigestChoice, Mtime, Owner, Tag},
    line::{Token, Tokens},
    login::from_base64,
    path::{RemotePath, decode},
};
use crate::limits::{FILE_BYTES_MAX, VERIFIER_BYTES_MAX};

/// A decimal number without sign, at most [`u64::MAX`].
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A size or an offset in bytes.
pub(crate) fn byte_count(text: &str) -> Option<u64> {
    number(text).filter(|&bytes| bytes <= FILE_BYTES_MAX)
}

/// The arguments of one command as they come, before it is known which are needed.
#[derive(Default)]
pub(super) struct Arguments<'a> {
    words: [Option<&'a str>; 2],
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<Mtime>,
    pub(super) tag: Option<Tag>,
    pub(super) owner: Option<Owner>,
    pub(super) from: Option<u64>,
    pub(super) digest: Option<DigestChoice>,
    pub(super) scram: Option<String>,
    pub(super) invite: Option<String>,
    pub(super) ahead: Option<bool>,
    data: Option<Vec<u8>>,
    /// Those of an action; the one field that may come more than once.
    pub(super) given: Vec<Vec<u8>>,
}

impl<'a> Arguments<'a> {
    pub(super) fn read(tokens: &mut Tokens<'a>) -> Result<Self, CommandError> {
        let mut found = Self::default();
        while let Some(token) = tokens.token()? {
            match token {
                Token::Word(word) => {
                    let free = found.words.iter_mut().find(|slot| slot.is_none());
                    *free.ok_or(CommandError::Usage("too many arguments"))? = Some(word);
                }
                Token::Field("size", value) => {
                    set(&mut found.size, byte_count(value), "size")?;
                }
                Token::Field("mtime", value) => {
                    set(&mut found.mtime, value.parse().ok(), "mtime")?;
                }
                Token::Field("tag", value) => set(&mut found.tag, value.parse().ok(), "tag")?,
                Token::Field("owner", value) => {
                    set(&mut found.owner, value.parse().ok(), "owner")?;
                }
                Token::Field("from", value) => set(&mut found.from, number(value), "from")?,
                Token::Field("digest", value) => {
                    let choice = match value {
                        "md5-tree" => Some(DigestChoice::Tree),
                        "md5" => Some(DigestChoice::TreeAndMd5),
                        _ => None,
                    };
                    set(&mut found.digest, choice, "digest")?;
                }
                Token::Field("ahead", value) => {
                    set(&mut found.ahead, (value == "1").then_some(true), "ahead")?;
                }
                Token::Field("scram", value) => set(&mut found.scram, opaque(value), "scram")?,
                Token::Field("invite", value) => set(&mut found.invite, opaque(value), "invite")?,
                Token::Field("data", value) => set(&mut found.data, from_base64(value), "data")?,
                Token::Field("arg", value) => found.given.push(decode(value)?),
                Token::Field(..) => return Err(CommandError::Usage("unknown field")),
            }
        }
        Ok(found)
    }

    pub(super) fn path(&mut self) -> Result<RemotePath, CommandError> {
        Ok(RemotePath::parse(self.word("path missing")?)?)
    }

    /// The next word; `missing` if there is none.
    pub(super) fn word(&mut self, missing: &'static str) -> Result<&'a str, CommandError> {
        let [first, second] = self.words;
        self.words = [second, None];
        first.ok_or(CommandError::Usage(missing))
    }

    /// A message of a login; empty if there is none.
    pub(super) fn data(&mut self) -> Vec<u8> {
        self.data.take().unwrap_or_default()
    }

    /// The command, if every argument was taken.
    pub(super) fn done(self, command: Command) -> Result<Command, CommandError> {
        let all_taken = self.words == [None, None]
            && self.size.is_none()
            && self.mtime.is_none()
            && self.tag.is_none()
            && self.owner.is_none()
            && self.from.is_none()
            && self.digest.is_none()
            && self.scram.is_none()
            && self.invite.is_none()
            && self.ahead.is_none()
            && self.data.is_none()
            && self.given.is_empty();
        if all_taken { Ok(command) } else { Err(CommandError::Usage("too many arguments")) }
    }
}

/// What another layer will read, if it is not too long.
fn opaque(value: &str) -> Option<String> {
    (!value.is_empty() && value.len() <= VERIFIER_BYTES_MAX).then(|| value.to_owned())
}

/// Takes a field's value, once.
fn set<T>(slot: &mut Option<T>, value: Option<T>, name: &'static str) -> Result<(), CommandError> {
    if slot.is_some() {
        return Err(CommandError::Usage("field given twice"));
    }
    *slot = Some(value.ok_or(CommandError::BadValue(name))?);
    Ok(())
}
