//! What a configuration may say, what it may not, and what comes out of it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    auth::Rights,
    limits::{ADDRESS_CONNECTIONS_MAX, BANNER_BYTES_MAX, CONNECTIONS_MAX, LISTEN_ADDRESSES_MAX},
    server::{Access, Logins},
    wire::Registration,
};

/// Everything that there is.
const GOOD: &str = r#"
root = "data"
listen = ["127.0.0.1:8690", "[::1]:8690"]
users = "/etc/towpath/users"
login = true
anonymous = "read"
banner = "be kind"
keep-partials = "12h"
reserve = "1GiB"
max-rate = "100MiB"
max-connections = 100
max-per-address = 10
max-per-user = 5
[registration]
mode = "invite"
rights = "rw"
quota = "10GiB"
quota-files = 1000
[actions.free]
run = ["sh", "-c", "df"]
users = ["anna"]
timeout = "10s"
[sandbox]
enabled = true
read = ["/srv"]
write = ["/var/tmp"]
"#;

fn parse(text: &str) -> ConfigFile {
    ConfigFile::parse(text, Path::new("/conf/towd.toml"))
}

fn setup(text: &str) -> Setup {
    parse(text).check().unwrap()
}

fn told(config: &ConfigFile) -> Vec<String> {
    config.check().unwrap_err().iter().map(ToString::to_string).collect()
}

/// What is wrong with a text, all of it in one.
fn wrong(text: &str) -> String {
    told(&parse(text)).join("\n")
}

fn logins(setup: &Setup) -> &Logins {
    match &setup.settings.access {
        Access::Logins(logins) => logins,
        Access::Everybody => panic!("nobody logs in"),
    }
}

#[test]
fn everything_that_is_said_is_in_force() {
    let setup = setup(GOOD);
    // Relative paths begin where the file is.
    assert_eq!(setup.root, Path::new("/conf/data"));
    assert_eq!(setup.users.as_deref(), Some(Path::new("/etc/towpath/users")));
    assert_eq!(setup.listen.len(), 2);
    let settings = &setup.settings;
    assert_eq!(settings.keep_partials, Duration::from_secs(12 * 3600));
    assert_eq!(settings.reserve_bytes, 1 << 30);
    assert_eq!(settings.max_rate, Some(100 << 20));
    let most = (settings.max_connections, settings.max_per_address, settings.max_per_user);
    assert_eq!(most, (100, 10, 5));
    assert_eq!(settings.banner.as_deref(), Some("be kind"));
    let logins = logins(&setup);
    assert_eq!((logins.anonymous, logins.registration), (Some(Rights::READ), Registration::Invite));
    assert_eq!(logins.new_rights, Rights::READ.union(Rights::WRITE));
    assert_eq!((logins.new_quota_bytes, logins.new_quota_files), (Some(10 << 30), Some(1000)));
    assert_eq!(logins.invites, Path::new("/conf/data/.tow/invites"));
    assert!(settings.actions.prepare("anna", "free", &[]).is_ok());
    assert!(settings.actions.prepare("ben", "free", &[]).is_err());
    assert!(setup.programs.unwrap().iter().any(|folder| folder.ends_with("bin")));
    let paths = setup.sandbox.unwrap();
    assert_eq!((paths.read, paths.write), (vec!["/srv".into()], vec!["/var/tmp".into()]));
}

#[test]
fn what_is_not_said_is_the_default() {
    let setup = ConfigFile::default().check().unwrap();
    assert_eq!(setup.root, Path::new("./towpath-data"));
    assert_eq!(setup.listen, ["127.0.0.1:8690".parse().unwrap()]);
    assert_eq!(setup.settings.max_per_address, ADDRESS_CONNECTIONS_MAX);
    assert_eq!(logins(&setup).users, Path::new("./towpath-data/.tow/users"));
    assert_eq!((setup.programs, setup.sandbox), (None, Some(SandboxPaths::default())));
    assert!(setup.settings.banner.is_none());
}

#[test]
fn each_wrong_key_is_named_with_its_line_and_none_hides_another() {
    let text = "frob = 1\nreserve = \"1 Gig\"\nkeep-partials = 7\nanonymous = \"all\"\n\
                listen = [\"localhost\"]\nmax-connections = -1\nlogin = \"no\"\nbanner = \"\\n\"\n\
                max-per-user = 0\n[registration]\nrights = \"x\"\n[actions.a]\nrun = [\"/no/such\"]\n\
                [actions.b]\nrun = 3\n[actions.'B!']\nrun = [\"sh\"]\n";
    let found = told(&parse(text));
    for (line, words) in [
        (1, "unknown field `frob`"),
        (2, "write a size such as 10GiB"),
        (3, "expected a string"),
        (4, "unknown variant `all`"),
        (5, "write ADDR:PORT"),
        (6, "invalid value"),
        (7, "expected a boolean"),
        (8, "banner: it is one line"),
        (9, "max-per-user: it is a number from 1 to 16384, not 0"),
        (11, "rights are letters of rwda"),
        (13, "actions.a.run: \"/no/such\" can't be run"),
        (15, "expected a sequence"),
        (16, "actions.B!.name: a name has 1 to 32 characters"),
    ] {
        let place = format!("/conf/towd.toml:{line}:");
        let is_it = |told: &&String| told.starts_with(&place) && told.contains(words);
        assert_eq!(found.iter().filter(is_it).count(), 1, "{line} {words}\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), 13, "{}", found.join("\n"));
}

#[test]
fn a_broken_file_shows_the_line_and_the_place_in_it() {
    let problems = parse("root = \"/x\"\nlisten = [ = ]\n").check().unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].to_string().starts_with("/conf/towd.toml:2:12: "), "{}", problems[0]);
    assert_eq!(problems[0].snippet().unwrap(), " 2 | listen = [ = ]\n   |            ^");
    let escaped = wrong("\"\\u001b[2J\" = 1");
    assert!(!escaped.contains('\u{1b}') && escaped.contains("unknown field"), "{escaped}");
}

#[test]
fn contradictions_name_both_keys() {
    for (text, words) in [
        ("login = false\nanonymous = \"read\"", ":2:1: anonymous: login = false"),
        (
            "login = false\n[registration]\nmode = \"open\"",
            ":3:1: registration.mode: login = false",
        ),
        ("login = false\n[actions.a]\nrun = [\"sh\"]", "actions: login = false"),
        (
            "[registration]\nquota = 7",
            ":2:1: registration.quota: it says nothing without registration.mode",
        ),
        ("listen = [\"a:1\", \"b:1\", \"a:1\"]", "listen: a:1 stands there twice"),
        ("listen = []", "listen: 1 to 64 addresses, not 0"),
        ("root = \"\"", "root: a path must not be empty"),
        ("users = \"\"", "users: a path must not be empty"),
    ] {
        let found = wrong(text);
        assert!(found.contains(words) && found.lines().count() == 1, "{text}\n{found}");
    }
    let fine =
        setup("login = false\nanonymous = \"off\"\n[registration]\nmode = \"off\"\nquota = 7");
    assert!(matches!(fine.settings.access, Access::Everybody) && fine.users.is_none());
}

#[test]
fn numbers_are_refused_beyond_their_bounds_only() {
    for (key, most) in [("max-connections", CONNECTIONS_MAX), ("max-per-user", CONNECTIONS_MAX)] {
        for (number, fits) in [(0, false), (1, true), (most, true), (most + 1, false)] {
            assert_eq!(parse(&format!("{key} = {number}")).check().is_ok(), fits, "{key} {number}");
        }
    }
    for (length, fits) in [(BANNER_BYTES_MAX, true), (BANNER_BYTES_MAX + 1, false)] {
        let banner = "x".repeat(length);
        assert_eq!(parse(&format!("banner = \"{banner}\"")).check().is_ok(), fits);
    }
    for (count, fits) in [(LISTEN_ADDRESSES_MAX, true), (LISTEN_ADDRESSES_MAX + 1, false)] {
        let listen: Vec<_> = (1..=count).map(|port| format!("\"[::1]:{port}\"")).collect();
        assert_eq!(parse(&format!("listen = [{}]", listen.join(","))).check().is_ok(), fits);
    }
    assert!(wrong("reserve = \"99999999TiB\"").contains("too much"));
    assert!(wrong("reserve = -1").contains("less than nothing"));
    assert_eq!(setup("reserve = \"none\"").settings.reserve_bytes, 0);
    assert_eq!(setup("reserve = 1000").settings.reserve_bytes, 1000);
}

#[test]
fn flags_go_above_the_file_and_the_file_above_the_defaults() {
    let file =
        parse("root = \"/file\"\nmax-per-user = 7\n[registration]\nmode = \"open\"\nquota = 1");
    let mut flags = ConfigFile { root: Some("flag".into()), ..ConfigFile::default() };
    flags.registration.mode = Some(RegistrationMode::Invite);
    let setup = flags.over(file).check().unwrap();
    assert_eq!(setup.root, Path::new("flag"));
    assert_eq!((setup.settings.max_per_user, setup.settings.max_per_address), (7, 1024));
    let logins = logins(&setup);
    assert_eq!((logins.registration, logins.new_quota_bytes), (Registration::Invite, Some(1)));
}

#[test]
fn what_is_wrong_with_a_flag_has_no_place_in_the_file() {
    let file = parse("max-per-user = 7\nlogin = true\nanonymous = \"read\"");
    let flags = ConfigFile { max_per_user: Some(0), login: Some(false), ..ConfigFile::default() };
    let found = told(&flags.over(file));
    assert!(found.contains(&"max-per-user: it is a number from 1 to 16384, not 0".to_owned()));
    // This one stands in the file.
    assert!(found.iter().any(|told| told.starts_with("/conf/towd.toml:3:1: anonymous: login")));
}

#[test]
fn a_running_server_keeps_what_needs_a_restart() {
    let started = parse("root = \"/a\"\nmax-per-user = 1");
    let mut same = parse("root = \"/a\"\nlisten = [\"127.0.0.1:8690\"]\nmax-per-user = 2");
    assert!(same.keep_started(&started).is_empty());
    assert_eq!(same.max_per_user, Some(2));
    let mut other = parse(
        "root = \"/b\"\nlisten = [\"[::]:1\"]\nusers = \"/c\"\nworkers = 2\n[sandbox]\nenabled = false",
    );
    assert_eq!(other.keep_started(&started), ["root", "listen", "users", "workers", "sandbox"]);
    let kept = other.check().unwrap();
    assert_eq!((kept.root.as_path(), kept.listen), (Path::new("/a"), started.listen()));
    assert_eq!(kept.users.as_deref(), Some(Path::new("/a/.tow/users")));
    assert!(kept.sandbox.is_some());
    assert_eq!(kept.workers, 1);
}

#[test]
fn no_file_that_decides_who_gets_in_lies_where_users_write() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join(".tow")).unwrap();
    fs::create_dir(root.join("home")).unwrap();
    let text = |users: &str| format!("root = {root:?}\nusers = {:?}", root.join(users));
    for users in ["users", "home/users", ".tow/../users", "home/../home/users"] {
        assert!(wrong(&text(users)).contains("users: it lies below root"), "{users}");
    }
    for users in [".tow/users", "../users"] {
        assert!(parse(&text(users)).check().is_ok(), "{users}");
    }
    let file = root.join("home/towd.toml");
    fs::write(&file, "root = \"..\"").unwrap();
    assert!(told(&ConfigFile::read(&file))[0].contains("the configuration lies below root"));
}

#[test]
fn a_file_is_read_if_it_is_one() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("towd.toml");
    let first = |file: &Path| told(&ConfigFile::read(file)).remove(0);
    assert!(first(&file).contains("No such file") && first(&file).contains("towd.toml"));
    assert!(first(dir.path()).contains("not a regular file"));
    assert!(first(Path::new("/dev/zero")).contains("not a regular file"));
    fs::write(&file, b"banner = \"\xff\"").unwrap();
    assert!(first(&file).contains("UTF-8"));
    for (length, fits) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        fs::write(&file, "#".repeat(length)).unwrap();
        assert_eq!(ConfigFile::read(&file).check().is_ok(), fits, "{length}");
    }
}

#[test]
fn whoever_may_write_the_file_must_be_trusted_with_actions() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("towd.toml");
    for (text, mode, fits) in [
        ("[actions.a]\nrun = [\"sh\"]", 0o644, true),
        ("[actions.a]\nrun = [\"sh\"]", 0o664, false),
        ("[actions.a]\nrun = [\"sh\"]", 0o602, false),
        ("banner = \"hi\"", 0o666, true),
    ] {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let found = ConfigFile::read(&file).check();
        assert_eq!(found.is_ok(), fits, "{text} {mode:o}");
        if let Err(problems) = found {
            assert!(problems[0].to_string().contains("decides what is run"), "{}", problems[0]);
        }
    }
}

/// A setup is one that a server can work with.
fn is_sound(setup: &Setup) -> bool {
    let settings = &setup.settings;
    let counts = [settings.max_connections, settings.max_per_address, settings.max_per_user];
    let is_everybody = matches!(settings.access, Access::Everybody);
    counts.iter().all(|count| (1..=CONNECTIONS_MAX).contains(count))
        && (1..=LISTEN_ADDRESSES_MAX).contains(&setup.listen.len())
        && !setup.root.as_os_str().is_empty()
        && setup.users.is_none() == is_everybody
        && settings.banner.as_ref().is_none_or(|text| !text.contains(char::is_control))
        && !(is_everybody && setup.programs.is_some())
}

/// Whatever came of a text, it is whole: a sound setup, or problems that can be shown.
fn is_whole(text: &str) -> bool {
    match parse(text).check() {
        Ok(setup) => is_sound(&setup),
        Err(problems) => {
            let shown = |problem: &Problem| {
                let line = problem.to_string();
                let snippet = problem.snippet().unwrap_or_default();
                !line.contains(char::is_control) && snippet.lines().count() <= 2
            };
            !problems.is_empty() && problems.iter().all(shown)
        }
    }
}

proptest! {
    #[test]
    fn a_spoiled_file_gives_a_sound_setup_or_an_error(
        edits in prop::collection::vec(
            (0..GOOD.len(), 0..40usize, "[a-z0-9\"'\\[\\]{}=.\n #\\\\-]{0,6}|\\PC{0,3}|\\u{0}"),
            1..4,
        ),
    ) {
        let mut text = GOOD.to_owned();
        for (at, cut, insert) in edits {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            if let (true, true) = (text.is_char_boundary(at), text.is_char_boundary(end)) {
                text.replace_range(at..end, &insert);
            }
        }
        prop_assert!(is_whole(&text), "{text}");
    }

    #[test]
    fn lines_in_any_order_and_number_give_a_sound_setup_or_an_error(
        picks in prop::collection::vec(0..24usize, 0..12),
    ) {
        let lines: Vec<_> = GOOD.lines().collect();
        let picked = picks.iter().filter_map(|&at| lines.get(at).copied());
        let text = picked.collect::<Vec<_>>().join("\n");
        prop_assert!(is_whole(&text), "{text}");
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}|[a-z=\"\n\\[\\].0-9é]{0,60}") {
        prop_assert!(is_whole(&text), "{text}");
    }
}
