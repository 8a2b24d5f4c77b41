//! Servers with accounts: a user file, logins on a raw line, and what a folder looks like.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Protocol, Socket, Type};
use towpath::auth::file::{self, FileError};
use towpath::auth::scram::{ScramClient, ScramProof};
use towpath::auth::{
    Account, Accounts, ClientKeys, Invites, Password, Rights, ScramVerifier, UserName,
};
use towpath::client::{Client, Credentials, Options};
use towpath::server::{Access, Config, Logins, Server, Settings, Stopper};
use towpath::wire::{Reply, from_base64, to_base64};

use super::{PATIENCE, Raw, TestDir, Towd, tow};

/// Everybody's password, which must not be seen anywhere.
pub const PASSWORD: &str = "canary-in-a-coal-mine";

/// As few iterations as there may be: a test is not about them.
pub const ITERATIONS: u32 = 4096;

/// What a login that fails is told.
pub const WRONG: &str = "430 wrong name or password";

/// What somebody is told who should log in first.
pub const NOBODY: &str = "530 log in first";

/// A root, and a user file beside it.
#[derive(Debug)]
pub struct House(TestDir);

impl House {
    /// With these users, who have the rights `rwd`.
    pub fn of(users: &[&str]) -> Self {
        let house = Self(TestDir::new());
        fs::create_dir_all(house.root().join(".tow")).expect("a root");
        house.edit(|_| ());
        for user in users {
            house.add(user, "rwd");
        }
        house
    }

    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub fn users(&self) -> PathBuf {
        self.0.join("users")
    }

    /// A place that no server knows.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where a user is at home.
    pub fn home(&self, user: &str) -> PathBuf {
        self.root().join(user)
    }

    /// Changes the user file, as an administrator does.
    pub fn edit<R>(&self, change: impl FnOnce(&mut Accounts) -> R) -> R {
        let change = |accounts: &mut Accounts| Ok::<_, FileError>(change(accounts));
        file::update(&self.users(), change).expect("the user file is ours")
    }

    /// Adds a user with the password that everybody has.
    pub fn add(&self, user: &str, rights: &str) {
        self.add_with(user, rights, ITERATIONS);
    }

    pub fn add_with(&self, user: &str, rights: &str, iterations: u32) {
        let rights: Rights = rights.parse().expect("rights");
        let mut account = Account::new(name(user), rights);
        account.scram = Some(ScramVerifier::new(&password(PASSWORD), salt_of(user), iterations));
        assert!(self.edit(|accounts| accounts.put(account)), "{user}");
    }

    /// Changes a user.
    pub fn change(&self, user: &str, change: impl FnOnce(&mut Account)) {
        self.edit(|accounts| {
            let found = accounts.get(&name(user)).expect("there is such a user");
            let mut account = Account::clone(found);
            change(&mut account);
            assert!(accounts.put(account));
        });
    }

    pub fn lock(&self, user: &str) {
        self.change(user, |account| account.locked = true);
    }

    pub fn remove(&self, user: &str) {
        assert!(self.edit(|accounts| accounts.remove(&name(user))));
    }

    /// An invite, until `expires` in seconds since 1970.
    pub fn invite(&self, code: &str, expires: Option<u64>) {
        let add = |invites: &mut Invites| Ok::<_, FileError>(invites.add(code, expires, 0));
        file::update(&self.root().join(".tow/invites"), add).expect("the invites are ours");
    }

    /// A server over it.
    pub fn towd<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Towd {
        let mine = ["--users".into(), self.users().into_os_string()];
        let args = mine.into_iter().chain(args.into_iter().map(OsString::from));
        Towd::start_in(&self.root(), args)
    }

    /// A server in this process, with settings that the command line may not have.
    pub fn serve(&self, change: impl FnOnce(&mut Settings, &mut Logins)) -> InProcess {
        let mut logins = Logins::new(self.users(), self.root().join(".tow/invites"));
        let mut settings = Settings::default();
        change(&mut settings, &mut logins);
        settings.access = Access::Logins(logins);
        let config = Config { settings, ..Config::loopback(self.root()) };
        let server = Server::bind(&config).expect("a server can listen on loopback");
        let (addr, stopper) = (server.addresses()[0], server.stopper());
        let thread = thread::spawn(move || server.run().expect("the server runs"));
        InProcess { addr, stopper, thread: Some(thread) }
    }
}

/// A server in a thread of the test. Dropping it ends it.
#[derive(Debug)]
pub struct InProcess {
    addr: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl InProcess {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("it is joined once").expect("the server does not panic");
        }
    }
}

pub fn name(user: &str) -> UserName {
    user.parse().expect("a user name")
}

pub fn password(text: &str) -> Password {
    Password::new(text).expect("a password")
}

/// Different for each user, and the same in each run.
fn salt_of(user: &str) -> [u8; 16] {
    let mut salt = [7; 16];
    for (to, from) in salt.iter_mut().zip(user.bytes()) {
        *to = from;
    }
    salt
}

/// What the password comes to: computed once for all logins of a test.
pub fn keys(text: &str, salt: &[u8], iterations: u32) -> ClientKeys {
    type Known = HashMap<(String, Vec<u8>, u32), ClientKeys>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().expect("nobody panics with it");
    let derive = || ClientKeys::derive(&password(text), salt, iterations);
    known.entry((text.to_owned(), salt.to_vec(), iterations)).or_insert_with(derive).clone()
}

/// A connection that has read the greeting.
pub fn greeted(addr: SocketAddr) -> Raw {
    let mut peer = Raw::connect(addr);
    let greeting = peer.read_line();
    assert!(greeting.starts_with("220 tow/1 "), "{greeting}");
    peer
}

/// A connection from another address of this machine, to the greeting.
pub fn greeted_from(from: IpAddr, addr: SocketAddr) -> Raw {
    let mut peer = Raw::over(connect_from(from, addr));
    let greeting = peer.read_line();
    assert!(greeting.starts_with("220 tow/1 "), "{greeting}");
    peer
}

pub fn connect_from(from: IpAddr, addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP));
    let socket = socket.expect("a socket");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("all of 127.0.0.0/8 is ours");
    socket.connect_timeout(&addr.into(), PATIENCE).expect("the server accepts");
    socket.into()
}

/// The line that begins a login by SCRAM.
pub fn auth_line(user: &str, nonce: [u8; 18]) -> (ScramClient, String) {
    let (client, first) = ScramClient::new(&name(user), nonce);
    (client, format!("auth scram-sha-256 data={}\n", to_base64(first.as_bytes())))
}

/// Begins a login: the challenge, or the line that was said instead.
pub fn begin(peer: &mut Raw, user: &str) -> Result<(ScramClient, Vec<u8>), String> {
    let mut nonce = [0; 18];
    getrandom::fill(&mut nonce).expect("random bytes");
    let (client, line) = auth_line(user, nonce);
    peer.send(line);
    let said = peer.read_line();
    match challenge(&said) {
        Some(challenge) => Ok((client, challenge)),
        None => Err(said),
    }
}

/// The message of a challenge.
pub fn challenge(line: &str) -> Option<Vec<u8>> {
    let reply = Reply::parse(line.as_bytes()).ok()?;
    line.starts_with("334 ").then(|| reply.field("data").and_then(from_base64))?
}

/// The line that answers a challenge, and what the server has to say to it.
pub fn proof_line(client: ScramClient, challenge: &[u8], password: &str) -> (ScramProof, String) {
    let (expected, proof) = client
        .answer(challenge, |salt, iterations| keys(password, salt, iterations))
        .expect("a challenge that makes sense");
    (expected, format!("334 data={}\n", to_base64(proof.as_bytes())))
}

/// Tries to log in; the last line that was said. A server that says `230` has proven itself.
pub fn log_in_with(peer: &mut Raw, user: &str, password: &str) -> String {
    let (client, challenge) = match begin(peer, user) {
        Ok(begun) => begun,
        Err(said) => return said,
    };
    let (expected, line) = proof_line(client, &challenge, password);
    peer.send(line);
    let said = peer.read_line();
    if said.starts_with("230 ") {
        let reply = Reply::parse(said.as_bytes()).expect("a reply");
        let proof = reply.field("data").and_then(from_base64).expect("the server's proof");
        expected.check(&proof).expect("the server knows the user");
    }
    said
}

/// Logs in with the right password.
#[track_caller]
pub fn log_in(peer: &mut Raw, user: &str) {
    let said = log_in_with(peer, user, PASSWORD);
    assert!(said.starts_with(&format!("230 user={user} rights=")), "{said}");
}

/// A connection of a user.
#[track_caller]
pub fn logged_in(addr: SocketAddr, user: &str) -> Raw {
    let mut peer = greeted(addr);
    log_in(&mut peer, user);
    peer
}

/// Sends a line; the answer.
pub fn ask(peer: &mut Raw, line: &str) -> String {
    peer.send(format!("{line}\n"));
    peer.read_line()
}

/// The URL of a path of a user.
pub fn url(addr: SocketAddr, user: &str, path: &str) -> String {
    format!("tow://{user}@{addr}/{path}")
}

/// The client, with this password in its environment.
pub fn tow_with(password: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = tow(args);
    command.env("TOW_PASSWORD", password);
    command
}

/// A client of the library that logs in.
pub fn client(addr: SocketAddr, user: &str, options: Options) -> Client {
    let login = Some(Arc::new(Credentials::new(name(user), password(PASSWORD))));
    super::watch::client(addr, Options { login, ..options })
}

/// All that can be told of the files beneath a folder, itself included: two that are equal have
/// nothing made, removed, changed or touched between them.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).expect("what is listed is there");
        let mut about =
            format!("{:o} {} {}.{}", meta.mode(), meta.ino(), meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder that can be listed");
            left.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if meta.is_file() {
            about.push_str(&super::md5sum(&path));
        }
        found.insert(path, about);
    }
    found
}
