//! The processes of actions: what they get, what comes of their output, and that none is left.
//!
//! This process adopts orphans and is told apart from others by `/proc`, so the tests take turns.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use mio::{Events, Poll, Token};
use rustix::io::FdFlags;
use support::{PATIENCE, wait_until, watch::is_long};
use towpath::action::{Actions, Prepared, ProgramFault};
use towpath::limits::ACTIONS_RUNNING_MAX;
use towpath::server::child::{
    Budget, Child, Children, Chunk, Due, Exit, SpawnError, Stream, Swept, Verdict,
};

mod support;

/// The children of this process, and nobody else's turn meanwhile.
struct Turn {
    children: &'static Children,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    fn take() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        static CHILDREN: OnceLock<Children> = OnceLock::new();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let children =
            CHILDREN.get_or_init(|| Children::adopting(served()).expect("this process may adopt"));
        Self { children, _turn: turn }
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Child {
        self.children.spawn(&prepared(program, arguments), "operator").expect("it starts")
    }

    fn shell(&self, script: &str) -> Child {
        self.start("/bin/sh", &["-c", script])
    }

    /// Sweeps until nothing is left of the actions that are over.
    fn sweep(&self) {
        assert!(wait_until(PATIENCE, || self.children.sweep().expect("/proc is there").left == 0));
    }
}

/// Whatever a test did, the next one starts without children.
impl Drop for Turn {
    fn drop(&mut self) {
        let swept = wait_until(PATIENCE, || {
            self.children.sweep().is_ok_and(|swept| swept.left == 0)
                && children_of_mine().is_empty()
        });
        assert!(swept || std::thread::panicking(), "left: {:?}", children_of_mine());
    }
}

fn served() -> &'static Path {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder).expect("the build directory takes files");
    folder
}

fn prepared(program: &str, arguments: &[&str]) -> Prepared {
    Prepared {
        name: "it".to_owned(),
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        timeout: PATIENCE,
        max_output: 1 << 20,
        max_running: ACTIONS_RUNNING_MAX,
    }
}

/// What came of a child that was left to itself.
#[derive(Debug, Default)]
struct Ran {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Option<Exit>,
}

impl Ran {
    fn stdout(&self) -> &str {
        str::from_utf8(&self.stdout).expect("it is text")
    }
}

/// A loop as small as it can be: one poll, one child, edge-triggered.
fn run(mut child: Child) -> Ran {
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(8);
    child.register(poll.registry(), [Token(1), Token(2), Token(3)]).expect("registered");
    let mut ran = Ran::default();
    let until = Instant::now() + PATIENCE;
    loop {
        ran.exit = child.reap();
        drain(&mut child, Stream::Stdout, &mut ran.stdout);
        drain(&mut child, Stream::Stderr, &mut ran.stderr);
        if child.is_over() {
            return ran;
        }
        let left = until.saturating_duration_since(Instant::now());
        poll.poll(&mut events, Some(left)).expect("polled");
        assert!(!events.is_empty(), "nothing happens any more: {ran:?}");
    }
}

/// Reads until there is nothing for now.
fn drain(child: &mut Child, stream: Stream, into: &mut Vec<u8>) -> Chunk {
    let mut buffer = [0; 4096];
    loop {
        match child.read(stream, &mut buffer).expect("a pipe can be read") {
            Chunk::Bytes(bytes) => into.extend_from_slice(&buffer[..bytes]),
            end => return end,
        }
    }
}

fn first_line(child: &mut Child) -> String {
    let mut line = Vec::new();
    let found = wait_until(PATIENCE, || {
        drain(child, Stream::Stdout, &mut line);
        line.ends_with(b"\n")
    });
    assert!(found, "no line came");
    String::from_utf8(line).expect("it is text").trim_end().to_owned()
}

fn reaped(child: &mut Child) -> Exit {
    assert!(wait_until(PATIENCE, || child.reap().is_some()), "it does not end");
    child.reap().expect("it has ended")
}

/// State, parent and group of a process.
fn stat(pid: i32) -> Option<(String, i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let mut next = || fields.next().map(ToOwned::to_owned);
    Some((next()?, next()?.parse().ok()?, next()?.parse().ok()?))
}

fn is_there(pid: i32) -> bool {
    stat(pid).is_some()
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Ids and states: zombies are children, too.
fn children_of_mine() -> Vec<(i32, String)> {
    let mine = i32::try_from(std::process::id()).expect("an id fits");
    let child = |pid| stat(pid).filter(|(_, parent, _)| *parent == mine).map(|stat| (pid, stat.0));
    processes().filter_map(child).collect()
}

fn field(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.expect("a field of that name").trim().to_owned()
}

#[test]
fn both_streams_come_whole_and_apart() {
    let turn = Turn::take();
    let script = "i=0; while [ $i -lt 20000 ]; do echo out$i; echo err$i >&2; i=$((i+1)); done";
    let ran = run(turn.shell(script));
    let expected = |name| (0..20_000).map(|i| format!("{name}{i}\n")).collect::<String>();
    assert_eq!(ran.exit, Some(Exit::Code(0)));
    assert!(ran.stdout == expected("out").as_bytes(), "{} bytes", ran.stdout.len());
    assert!(ran.stderr == expected("err").as_bytes(), "{} bytes", ran.stderr.len());
}

#[test]
fn exit_status_and_signal_are_told() {
    let turn = Turn::take();
    assert_eq!(run(turn.shell("exit 0")).exit, Some(Exit::Code(0)));
    assert_eq!(run(turn.shell("exit 7")).exit, Some(Exit::Code(7)));
    assert_eq!(run(turn.shell("exit 255")).exit, Some(Exit::Code(255)));
    assert_eq!(run(turn.shell("kill -KILL $$")).exit, Some(Exit::Signal(9)));
    assert_eq!(run(turn.shell("kill -TERM $$")).exit, Some(Exit::Signal(15)));
}

#[test]
fn no_shell_reads_what_a_user_gives() {
    let turn = Turn::take();
    let text =
        "[it]\nrun = ['printf', '%s\\n', '{a}', '{b}']\narguments = { a = '(?s).*', b = '(?s).*' }";
    let actions = Actions::load(&toml::from_str(text).unwrap(), served()).unwrap();
    let corpus = [
        "$(id)",
        "`id`",
        "; id",
        "| id",
        "& id",
        "&& id",
        "> /tmp/x",
        "< /etc/passwd",
        "$HOME",
        "${PATH}",
        "*",
        "?",
        "[a-z]",
        "~",
        "{a,b}",
        "{b}",
        "'",
        "\"",
        "\\",
        "\\n",
        "a b",
        " ",
        "",
        "\n",
        "a\n; id",
        "\t",
        "!!",
        "#",
        "%s%n",
        "=",
        "\u{1b}[31m",
        "\u{202e}",
        "a\u{7f}",
        "$(touch /tmp/x)",
        "';id;'",
        "\";id;\"",
        "$((1+1))",
        "\r\n",
        "@file",
        "%00",
    ];
    for given in corpus {
        let arguments = [given.as_bytes(), b"{a}"];
        let prepared = actions.prepare("", "it", &arguments).unwrap();
        let ran = run(turn.children.spawn(&prepared, "").unwrap());
        assert_eq!((ran.stdout(), ran.exit), (&*format!("{given}\n{{a}}\n"), Some(Exit::Code(0))));
    }
}

#[test]
fn a_child_inherits_nothing() {
    let turn = Turn::take();
    // Open, many of them, and not marked to be closed.
    let many: Vec<_> = (0..100).map(|_| fs::File::open("/dev/zero").unwrap()).collect();
    for file in &many {
        rustix::io::fcntl_setfd(file.as_fd(), FdFlags::empty()).unwrap();
    }
    let child = turn.start("/bin/sleep", &["1000"]);
    let pid = child.process_id();
    // The parent goes on before the child is through with `execve`, and the loader opens libraries.
    let fds = || -> BTreeSet<_> {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        fds.map(|fd| fd.unwrap().file_name().into_string().unwrap()).collect()
    };
    let environ = || fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let only = ["0", "1", "2"].map(ToOwned::to_owned).into();
    let settled = wait_until(PATIENCE, || !environ().is_empty() && fds() == only);
    assert!(settled, "{:?}", fds());
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).unwrap(), Path::new("/dev/null"));
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    assert_eq!(stat(pid).unwrap().2, pid, "it leads a group of its own");
    for mask in ["SigBlk", "SigIgn", "SigCgt"] {
        let signals = u64::from_str_radix(&field(pid, mask), 16).unwrap();
        // 32 and 33 are glibc's own, which it ignores in whatever it starts.
        assert_eq!(signals & !(0b11 << 31), 0, "{mask}: {signals:x}");
    }
    let environ = environ();
    let environ: BTreeSet<_> = environ.split_terminator('\0').collect();
    let mark = format!("TOW_ACTION={}", child.id());
    let path = format!("PATH={}", towpath::action::PATH);
    assert_eq!(environ, [&*path, "LANG=C.UTF-8", "TOW_USER=operator", &mark].into());
    drop(many);
}

#[test]
fn what_the_server_was_started_with_does_not_reach_a_child() {
    // Nobody may sweep meanwhile: it would be taken for an orphan.
    let _turn = Turn::take();
    let this = std::env::current_exe().unwrap();
    let script = "exec 8</dev/zero 9</dev/zero; exec env --ignore-signal=HUP,INT,QUIT,TERM,CHLD,USR1,ALRM \
                  --block-signal=HUP,TERM,USR2 LD_LIBRARY_PATH=/x SECRET=x \"$0\" --exact a_child_inherits_nothing";
    let again = Command::new("/bin/sh").arg("-c").arg(script).arg(this).output().unwrap();
    let told = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && told.contains("1 passed"), "{told} {again:?}");
}

#[test]
fn who_does_not_read_holds_the_child_up_and_takes_no_memory() {
    let turn = Turn::take();
    let mut child = turn.start("/usr/bin/yes", &[]);
    // It has written, and sleeps: there is nothing else that it would wait for.
    let pid = child.process_id();
    let has_written = || {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        !io.lines().any(|line| line == "wchar: 0")
    };
    let blocked = wait_until(PATIENCE, || has_written() && stat(pid).unwrap().0 == "S");
    assert!(blocked);
    child.kill();
    assert_eq!(reaped(&mut child), Exit::Signal(9));
    let mut left = Vec::new();
    assert_eq!(drain(&mut child, Stream::Stdout, &mut left), Chunk::End);
    assert!((1..=64 << 10).contains(&left.len()), "{}", left.len());
}

#[test]
fn a_flood_ends_with_its_budget() {
    let turn = Turn::take();
    let prepared = Prepared { max_output: 300_000, ..prepared("/usr/bin/yes", &[]) };
    let mut child = turn.children.spawn(&prepared, "").unwrap();
    let mut budget = Budget::new(&prepared, Instant::now());
    let (mut passed, mut buffer) = (0, [0; 7000]);
    let ended = wait_until(PATIENCE, || {
        while let Chunk::Bytes(bytes) = child.read(Stream::Stdout, &mut buffer).unwrap() {
            match budget.after(bytes, Instant::now()) {
                Verdict::Within => passed += bytes,
                Verdict::Beyond(rest) => passed += rest,
            }
            if budget.due(Instant::now()) == Due::Terminate {
                child.terminate();
            }
        }
        child.reap().is_some()
    });
    assert!(ended);
    assert_eq!((passed, child.reap()), (300_000, Some(Exit::Signal(15))));
}

#[test]
fn who_ignores_term_is_killed_with_its_group() {
    let turn = Turn::take();
    let script = "trap '' TERM; (trap '' TERM; while :; do sleep 1000; done) & echo $!; \
                  while :; do sleep 1000; done";
    let mut child = turn.shell(script);
    let grandchild: i32 = first_line(&mut child).parse().unwrap();
    child.terminate();
    assert!(!child.has_exited());
    child.kill();
    assert_eq!(reaped(&mut child), Exit::Signal(9));
    turn.sweep();
    assert!(wait_until(PATIENCE, || !is_there(grandchild)));
}

#[test]
fn a_grandchild_that_keeps_the_pipe_ends_with_its_leader() {
    let turn = Turn::take();
    let ran = run(turn.shell("sleep 1000 & echo $!; exit 3"));
    assert_eq!(ran.exit, Some(Exit::Code(3)));
    let grandchild: i32 = ran.stdout().trim().parse().unwrap();
    // Without a sweep; its zombie is for that.
    assert!(wait_until(PATIENCE, || stat(grandchild).unwrap().0 == "Z"));
    turn.sweep();
    assert!(!is_there(grandchild));
}

#[test]
fn output_of_the_leader_is_whole_though_somebody_else_keeps_the_pipe() {
    let turn = Turn::take();
    let script = "setsid sleep 1000 & head -c 50000 /dev/zero; exit 0";
    let ran = run(turn.shell(script));
    assert_eq!((ran.stdout.len(), ran.exit), (50_000, Some(Exit::Code(0))));
    turn.sweep();
}

/// Starts a daemon the proper way, in a session of its own and its parent gone, and says its id.
const DAEMON: &str = "(setsid sh -c 'echo $$; exec sleep 1000' &) ; sleep 1000";

#[test]
fn a_daemon_is_swept_once_its_action_is_over_and_not_before() {
    let turn = Turn::take();
    let mut child = turn.shell(DAEMON);
    let daemon: i32 = first_line(&mut child).parse().unwrap();
    let mine = i32::try_from(std::process::id()).unwrap();
    assert!(wait_until(PATIENCE, || stat(daemon).unwrap().1 == mine), "it is adopted");
    assert_ne!(stat(daemon).unwrap().2, child.process_id(), "it has left the group");
    assert_eq!(turn.children.sweep().unwrap(), Swept::default());
    assert!(is_there(daemon) && is_there(child.process_id()));
    child.kill();
    reaped(&mut child);
    assert!(is_there(daemon), "the group's end is not its end");
    turn.sweep();
    assert!(!is_there(daemon));
}

#[test]
fn generations_of_daemons_are_swept() {
    let turn = Turn::take();
    let script = "setsid sh -c 'setsid sh -c \"setsid sh -c \\\"sleep 1000 & echo x; sleep 1000\\\" & \
                  sleep 1000\" & sleep 1000' & sleep 1000";
    let mut child = turn.shell(script);
    assert_eq!(first_line(&mut child), "x");
    let mark = format!("TOW_ACTION={}", child.id()).into_bytes();
    let marked = || {
        let environ = |pid| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        processes()
            .filter(|&pid| environ(pid).split(|&byte| byte == 0).any(|it| it == mark))
            .count()
    };
    assert!(marked() >= 6, "{}", marked());
    drop(child);
    turn.sweep();
    assert_eq!(marked(), 0);
}

#[test]
fn a_daemon_that_hid_its_origin_lives_no_longer_than_the_actions_it_may_belong_to() {
    let turn = Turn::take();
    let script = "(setsid env -i sh -c 'echo $$; exec sleep 1000' &) ; sleep 1000";
    let mut child = turn.shell(script);
    let daemon: i32 = first_line(&mut child).parse().unwrap();
    let mine = i32::try_from(std::process::id()).unwrap();
    assert!(wait_until(PATIENCE, || stat(daemon).unwrap().1 == mine));
    let other = turn.start("/bin/sleep", &["1000"]);
    // Seen while both run: it may be of either.
    turn.sweep();
    drop(child);
    let later = turn.start("/bin/sleep", &["1000"]);
    turn.sweep();
    assert!(is_there(daemon), "it may belong to the other");
    drop(other);
    // The one that started later can't have left it behind.
    turn.sweep();
    assert!(!is_there(daemon));
    assert!(is_there(later.process_id()) && !later.has_exited());
}

#[test]
fn children_of_others_are_left_alone() {
    let turn = Turn::take();
    let children = Children::new(served()).unwrap();
    let others = turn.start("/bin/sleep", &["1000"]);
    let mut own = Command::new("/bin/sleep").arg("1000").env("TOW_ACTION", "x").spawn().unwrap();
    let mut ended = Command::new("/bin/true").stdin(Stdio::null()).spawn().unwrap();
    let zombie = i32::try_from(ended.id()).unwrap();
    assert!(wait_until(PATIENCE, || stat(zombie).unwrap().0 == "Z"));
    // Its own stray is found among them, for this process adopts.
    let mut child = children.spawn(&prepared("/bin/sh", &["-c", DAEMON]), "").unwrap();
    let daemon: i32 = first_line(&mut child).parse().unwrap();
    drop(child);
    assert!(wait_until(PATIENCE, || {
        let swept = children.sweep().unwrap();
        swept.left == 0 && stat(daemon).is_none_or(|stat| stat.0 == "Z")
    }));
    assert!(ended.wait().unwrap().success(), "its status is the owner's to ask for");
    assert!(own.try_wait().unwrap().is_none());
    assert!(!others.has_exited());
    own.kill().unwrap();
    own.wait().unwrap();
}

#[test]
fn two_hundred_clients_that_leave_mid_run_leave_nothing() {
    let turn = Turn::take();
    let script = "trap '' TERM HUP; sleep 1000 & setsid sleep 1000 & \
                  (setsid sh -c 'sleep 1000 & sleep 1000' &); echo; while :; do sleep 1000; done";
    let mut marks = BTreeSet::new();
    for round in 0..if is_long() { 10_000 } else { 200 } {
        let mut child = turn.shell(script);
        marks.insert(format!("TOW_ACTION={}", child.id()).into_bytes());
        // At any moment: before it did anything, and when all of it runs.
        if round % 2 == 0 {
            first_line(&mut child);
        }
        drop(child);
        turn.children.sweep().unwrap();
    }
    turn.sweep();
    let none = wait_until(PATIENCE, || {
        turn.children.sweep().unwrap();
        children_of_mine().is_empty()
    });
    assert!(none, "{:?}", children_of_mine());
    let marked = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&byte| byte == 0).any(|it| marks.contains(it))
    };
    assert_eq!(processes().filter(marked).count(), 0);
}

#[test]
fn no_more_run_at_the_same_time_than_may() {
    let turn = Turn::take();
    let two = Prepared { max_running: 2, ..prepared("/bin/sleep", &["1000"]) };
    let start = || turn.children.spawn(&two, "");
    let (mut first, _second) = (start().unwrap(), start().unwrap());
    assert!(matches!(start(), Err(SpawnError::TooMany)));
    let other = Prepared { name: "other".to_owned(), ..two.clone() };
    turn.children.spawn(&other, "").unwrap();
    first.kill();
    reaped(&mut first);
    let mut third = start().unwrap();
    assert!(matches!(start(), Err(SpawnError::TooMany)));
    // One that could not be started takes no place.
    drop(first);
    third.kill();
    reaped(&mut third);
    let broken = Prepared { arguments: vec!["\0".into()], ..two.clone() };
    assert!(matches!(turn.children.spawn(&broken, ""), Err(SpawnError::System(_))));
    start().unwrap();
}

#[test]
fn all_actions_together_are_bounded() {
    let turn = Turn::take();
    let mut running = Vec::new();
    for number in 0..ACTIONS_RUNNING_MAX {
        let name = format!("it{number}");
        let prepared = Prepared { name, ..prepared("/bin/sleep", &["1000"]) };
        running.push(turn.children.spawn(&prepared, "").unwrap());
    }
    let one_more = turn.children.spawn(&prepared("/bin/sleep", &["1000"]), "");
    assert!(matches!(one_more, Err(SpawnError::TooMany)));
}

#[test]
fn a_program_is_checked_again_right_before_it_runs() {
    let turn = Turn::take();
    let swapped = served().join("children-swapped");
    fs::copy("/bin/true", &swapped).unwrap();
    let error = turn.children.spawn(&prepared(swapped.to_str().unwrap(), &[]), "").unwrap_err();
    fs::remove_file(&swapped).unwrap();
    let SpawnError::Program(error) = error else { panic!("{error}") };
    // Which of the two depends on where the build directory is.
    assert!(matches!(error.fault, ProgramFault::Served | ProgramFault::Writable(_)), "{error}");
    let absent = turn.children.spawn(&prepared("/bin/no-such-program", &[]), "").unwrap_err();
    assert!(matches!(absent, SpawnError::Program(_)), "{absent}");
}

#[test]
fn a_child_can_be_handed_from_thread_to_thread() {
    let turn = Turn::take();
    let child = std::thread::scope(|scope| scope.spawn(|| turn.shell("echo x")).join().unwrap());
    assert_eq!(run(child).stdout(), "x\n");
}

#[test]
fn a_sweep_takes_no_exit_from_the_loop() {
    let turn = Turn::take();
    let mut child = turn.shell("exit 3");
    assert!(wait_until(PATIENCE, || child.has_exited()));
    assert_eq!(turn.children.sweep().unwrap(), Swept::default());
    assert_eq!(child.reap(), Some(Exit::Code(3)));
}

#[test]
fn an_exit_that_somebody_else_took_is_told_as_lost() {
    let turn = Turn::take();
    let mut child = turn.shell("exit 3");
    let pid = rustix::process::Pid::from_raw(child.process_id());
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
    child.kill();
    assert_eq!(child.reap(), Some(Exit::Lost));
    assert_eq!(child.read(Stream::Stdout, &mut [0; 8]).unwrap(), Chunk::End);
}
