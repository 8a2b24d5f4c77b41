//! Logging in, and making an account.

use std::{
    fmt, io,
    sync::{Mutex, PoisonError},
};

use super::{Client, ClientError, Observer, line::Line};
use crate::{
    auth::{
        ClientKeys, Password, ScramVerifier, UserName, cram,
        scram::{ScramClient, ScramError},
    },
    limits::SCRAM_ITERATIONS,
    wire::{
        Code, Command, Greeting, Mechanism, Registration, Reply, decode, from_base64, to_base64,
    },
};

/// Who logs in, and by what.
pub struct Credentials {
    user: UserName,
    password: Password,
    mechanism: Mechanism,
    /// What the password comes to with the account's salt and iterations: expensive, so it is
    /// computed once and not at each reconnection.
    keys: Mutex<Option<(Vec<u8>, u32, ClientKeys)>>,
}

impl Credentials {
    /// Logs in by SCRAM-SHA-256, and by nothing weaker.
    #[must_use]
    pub const fn new(user: UserName, password: Password) -> Self {
        let keys = Mutex::new(None);
        Self { user, password, mechanism: Mechanism::ScramSha256, keys }
    }

    /// Logs in by CRAM-MD5, for servers that have nothing else. Whoever listens can try passwords
    /// at the full speed of MD5, and nothing proves that the server is the right one.
    #[must_use]
    pub const fn with_cram_md5(mut self) -> Self {
        self.mechanism = Mechanism::CramMd5;
        self
    }

    fn client_keys(&self, salt: &[u8], iterations: u32) -> ClientKeys {
        let mut kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((its_salt, its_iterations, keys)) = &*kept
            && (&**its_salt, *its_iterations) == (salt, iterations)
        {
            return keys.clone();
        }
        let keys = ClientKeys::derive(&self.password, salt, iterations);
        *kept = Some((salt.to_vec(), iterations, keys.clone()));
        keys
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a server said to somebody who logged in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Welcome {
    /// The operator's words to everybody; any bytes, to be made printable before they are shown.
    pub banner: Vec<u8>,
}

impl Client {
    /// Logs in, if the server wants that. Never in a weaker way than was asked for: a server that
    /// offers less than it should is not talked to.
    pub(super) fn log_in(&self, line: &mut Line, greeting: &Greeting) -> Result<(), ClientError> {
        let refuse = |text: &str| Err(ClientError::Login(text.to_owned()));
        let reply = match &self.options.login {
            None if greeting.login.is_empty() => return Ok(()),
            None if greeting.login.contains(&Mechanism::Anonymous) => {
                line.send_command(&auth_command(Mechanism::Anonymous, b""))?;
                line.read_reply()?
            }
            None => return refuse("the server wants a login"),
            Some(_) if greeting.login.is_empty() => return refuse("the server has no logins"),
            Some(login) if !greeting.login.contains(&login.mechanism) => {
                let text = format!("the server does not offer {}", login.mechanism);
                return refuse(&text);
            }
            Some(login) => match login.mechanism {
                Mechanism::CramMd5 => cram_md5(login, line)?,
                Mechanism::ScramSha256 | Mechanism::Anonymous => scram(login, line)?,
            },
        };
        if reply.code != Code::LoggedIn {
            return Err(ClientError::from_reply(reply));
        }
        let banner = reply.field("banner").and_then(|banner| decode(banner).ok());
        let welcome = Welcome { banner: banner.unwrap_or_default() };
        *self.welcome.lock().unwrap_or_else(PoisonError::into_inner) = welcome;
        Ok(())
    }

    /// What the server said at the last login.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.welcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes an account on a server that allows it. The password does not cross the wire: the
    /// server gets what it needs to verify it.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] with the server's reason.
    pub fn register(
        &self,
        user: &UserName,
        password: &Password,
        invite: Option<&str>,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        let salt = random().map_err(no_randomness)?;
        let verifier = ScramVerifier::new(password, salt, SCRAM_ITERATIONS);
        let command = Command::Register {
            name: user.to_string(),
            verifier: verifier.to_text(),
            invite: invite.map(str::to_owned),
        };
        let mut asked_before = false;
        let ((), _) = self.retry(observer, |_, _| {
            let (mut line, greeting) = self.connect_as_nobody()?;
            if greeting.registration == Registration::Off {
                let text = "this server makes no accounts on request";
                let reply = Reply::text(Code::RegistrationClosed, text);
                return Err(ClientError::Refused(reply));
            }
            line.send_command(&command)?;
            let again = std::mem::replace(&mut asked_before, true);
            let reply = line.read_reply()?;
            match reply.code {
                Code::Done => Ok(()),
                // For minutes, if not an hour: nothing to wait for.
                Code::TooMany => Err(ClientError::Refused(reply)),
                // The answer to the first attempt may have been lost with the line.
                Code::NameTaken if again => {
                    let text = "the name is taken now: if it is yours, you can log in";
                    Err(ClientError::Refused(Reply::text(Code::NameTaken, text)))
                }
                _ => Err(ClientError::from_reply(reply)),
            }
        })?;
        Ok(())
    }
}

fn auth_command(mechanism: Mechanism, initial: &[u8]) -> Command {
    Command::Auth { mechanism, initial: initial.to_vec() }
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn no_randomness(error: getrandom::Error) -> ClientError {
    ClientError::Output { what: "drawing random bytes", error: io::Error::other(error) }
}

/// The message of a challenge; any other reply ends the login.
fn challenge(line: &mut Line) -> Result<Vec<u8>, ClientError> {
    let reply = line.read_reply()?;
    match reply.code {
        Code::Challenge => {}
        // It lets everybody in, or wants to be taken for one that knows us.
        Code::LoggedIn => return Err(senseless(ScramError::ServerUnproven)),
        _ => return Err(ClientError::from_reply(reply)),
    }
    reply.field("data").and_then(from_base64).ok_or_else(|| ClientError::unexpected(&reply))
}

fn answer(line: &mut Line, proof: &[u8]) -> Result<Reply, ClientError> {
    line.send_line(&Reply::new(Code::Challenge).with("data", to_base64(proof)))?;
    line.read_reply()
}

fn senseless(error: ScramError) -> ClientError {
    ClientError::Login(error.to_string())
}

fn scram(login: &Credentials, line: &mut Line) -> Result<Reply, ClientError> {
    let nonce = random().map_err(no_randomness)?;
    let (client, first) = ScramClient::new(&login.user, nonce);
    line.send_command(&auth_command(Mechanism::ScramSha256, first.as_bytes()))?;
    let challenge = challenge(line)?;
    let keys = |salt: &[u8], iterations| login.client_keys(salt, iterations);
    let (expected, proof) = client.answer(&challenge, keys).map_err(senseless)?;
    let reply = answer(line, proof.as_bytes())?;
    if reply.code == Code::LoggedIn {
        // Whoever does not know the verifier can't say this.
        let theirs = reply.field("data").and_then(from_base64).unwrap_or_default();
        expected.check(&theirs).map_err(senseless)?;
    }
    Ok(reply)
}

fn cram_md5(login: &Credentials, line: &mut Line) -> Result<Reply, ClientError> {
    let name = login.user.to_string();
    line.send_command(&auth_command(Mechanism::CramMd5, name.as_bytes()))?;
    let challenge = challenge(line)?;
    let proof = cram::answer(&login.user, &login.password, &challenge);
    let proof = proof.map_err(|error| ClientError::Login(error.to_string()))?;
    answer(line, proof.as_bytes())
}
