//! Actions as an operator writes them, and as users run them.

use proptest::prelude::*;

use super::*;

const DISK: &str = r#"
    [disk]
    run = ["df", "-h", "{path}"]
    arguments.path = "[a-z/]+"
    users = ["operator"]
    timeout = "10s"
    max-output = 4096
    max-running = 2
    description = "free space"
"#;

fn load(text: &str) -> Result<Actions, LoadError> {
    let served = tempfile::tempdir().unwrap();
    Actions::load(&toml::from_str(text).unwrap(), served.path())
}

/// What the error says of an action with these lines.
fn refused(lines: &str) -> String {
    load(&format!("[it]\n{lines}")).unwrap_err().to_string()
}

fn argument(which: &str, why: ArgumentFault) -> ActionError {
    ActionError::Argument { which: which.to_owned(), why }
}

#[test]
fn an_action_is_prepared_as_it_was_written() {
    let actions = load(DISK).unwrap();
    let prepared = actions.prepare("operator", "disk", &[b"/home"]).unwrap();
    assert!(prepared.program.is_absolute() && prepared.program.ends_with("df"));
    assert_eq!(prepared.arguments, ["-h", "/home"]);
    assert_eq!(prepared.name, "disk");
    assert_eq!(prepared.timeout, Duration::from_secs(10));
    assert_eq!((prepared.max_output, prepared.max_running), (4096, 2));
}

#[test]
fn what_is_not_written_has_a_bound_all_the_same() {
    use crate::limits::{ACTION_OUTPUT_BYTES, ACTION_RUNNING, ACTION_TIMEOUT};
    let prepared = load("[it]\nrun = ['true']").unwrap().prepare("anybody", "it", &[]).unwrap();
    assert_eq!(prepared.timeout, ACTION_TIMEOUT);
    assert_eq!(prepared.max_output, ACTION_OUTPUT_BYTES);
    assert_eq!(prepared.max_running, ACTION_RUNNING);
}

#[test]
fn an_action_of_others_is_as_unknown_as_one_that_is_not_there() {
    let actions = load(DISK).unwrap();
    let others = actions.prepare("anybody", "disk", &[b"/"]);
    assert_eq!(others, Err(ActionError::Unknown));
    // Also if the arguments are wrong: they are not looked at.
    assert_eq!(actions.prepare("anybody", "disk", &[b"\xff", b"", b""]), others);
    assert_eq!(actions.prepare("operator", "absent", &[b"/"]), others);
    assert_eq!(actions.for_user("anybody").count(), 0);
    let listed = Summary { name: "disk", arguments: vec!["path"], description: "free space" };
    assert_eq!(actions.for_user("operator").collect::<Vec<_>>(), [listed]);
}

#[test]
fn arguments_are_exactly_as_many_as_there_are_placeholders() {
    let actions = load(DISK).unwrap();
    let missing = actions.prepare("operator", "disk", &[]);
    assert_eq!(missing, Err(argument("path", ArgumentFault::Missing)));
    let more = actions.prepare("operator", "disk", &[b"/", b"/", b"/"]);
    assert_eq!(more, Err(argument("2", ArgumentFault::TooMany { takes: 1 })));
    let wrong = actions.prepare("operator", "disk", &[b"/ETC"]);
    assert_eq!(wrong, Err(argument("path", ArgumentFault::Mismatch)));
}

#[test]
fn placeholders_are_filled_in_where_they_stand_each_from_one_argument() {
    let text = "[it]\nrun = ['echo', '{b}', 'x', '{a}', '{b}']\narguments = { a = 'a+', b = 'b+' }";
    let actions = load(text).unwrap();
    let prepared = actions.prepare("", "it", &[b"bb", b"aa"]).unwrap();
    assert_eq!(prepared.arguments, ["bb", "x", "aa", "bb"]);
    let wrong = actions.prepare("", "it", &[b"bb", b"bb"]);
    assert_eq!(wrong, Err(argument("a", ArgumentFault::Mismatch)));
}

#[test]
fn what_a_user_gives_is_not_looked_at_for_placeholders() {
    let text = "[it]\nrun = ['echo', '{a}', '{b}']\narguments = { a = '.*', b = '.*' }";
    let prepared = load(text).unwrap().prepare("", "it", &[b"{b}", b"{a}"]).unwrap();
    assert_eq!(prepared.arguments, ["{b}", "{a}"]);
}

proptest! {
    #[test]
    fn no_byte_of_an_argument_means_anything(given in "[;|&$`'\"<>(){}*?!#~\\\\ \t\n%=a-][;|&$`'\"<>(){}*?!#~\\\\ \t\n%=a-]*") {
        prop_assume!(!given.starts_with('-'));
        let served = tempfile::tempdir().unwrap();
        let text = "[it]\nrun = ['echo', 'before', '{any}', 'behind']\narguments.any = '(?s).*'";
        let actions = Actions::load(&toml::from_str(text).unwrap(), served.path()).unwrap();
        let prepared = actions.prepare("", "it", &[given.as_bytes()]).unwrap();
        prop_assert_eq!(prepared.arguments, ["before", given.as_str(), "behind"]);
    }
}

#[test]
fn names_are_plain_and_short() {
    let long = "x".repeat(33);
    for name in ["Upper", "a b", "a.b", "..", "a/b", "", "\u{e9}", &long] {
        let config = BTreeMap::from([(name.to_owned(), ActionConfig::default())]);
        let error = Actions::load(&config, Path::new("/")).unwrap_err();
        assert!(matches!(error.why, ConfigFault::Name(_)), "{error}");
    }
    let text = format!("[{}]\nrun = ['true']", "x".repeat(32));
    assert_eq!(load(&text).unwrap().for_user("").count(), 1);
}

#[test]
fn a_placeholder_is_a_whole_element_behind_the_program_and_has_a_pattern() {
    let cases = [
        ("run = ['{a}']\narguments.a = 'a'", "run: the program can't be a placeholder"),
        ("run = ['/bin/{a}']\narguments.a = 'a'", "run: {a} has to be an element of its own"),
        ("run = ['ls', '--x={a}']\narguments.a = 'a'", "run: {a} has to be an element of its own"),
        ("run = ['ls', '{{a}']\narguments.a = 'a'", "run: {a} has to be an element of its own"),
        ("run = ['ls', '{a}']", "arguments: {a} has no pattern in `arguments`"),
        ("run = ['ls']\narguments.a = 'a'", "arguments: {a} does not stand in `run`"),
        ("run = ['ls']\narguments.A = 'a'", "arguments: a name has 1 to 32 characters"),
        ("run = ['ls', '{a}']\narguments.a = '('", "arguments: a: not a pattern"),
        ("run = ['ls', '{a}']\narguments.a = 'a)|(?:b'", "arguments: a: not a pattern"),
    ];
    for (lines, expected) in cases {
        let error = refused(lines);
        assert!(error.starts_with(&format!("actions.it: {expected}")), "{lines}: {error}");
    }
    // Brackets around what is no name are text.
    load("[it]\nrun = ['find', '{}', '{ print $1 }', 'a{b,c}d']").unwrap();
}

#[test]
fn what_is_out_of_bounds_is_refused_with_action_and_key() {
    let words = |count| format!("run = [{}]", vec!["'true'"; count].join(", "));
    load(&format!("[it]\n{}", words(64))).unwrap();
    let too_many = words(65);
    let cases = [
        ("run = []", "run: it has 1 to 64 elements, not 0"),
        (too_many.as_str(), "run: it has 1 to 64 elements, not 65"),
        (r#"run = ["true", "\u0000"]"#, "run: it has a NUL character"),
        ("run = ['bin/true']", "run: \"bin/true\" can't be run: \"bin/true\" is neither"),
        ("run = ['no-such-program']", "run: \"no-such-program\" can't be run"),
        ("run = ['true']\nusers = []", "users: nobody is listed"),
        ("run = ['true']\ntimeout = '61m'", "timeout: it is a time from 1ms to 1h"),
        ("run = ['true']\ntimeout = '0s'", "timeout: it is a time"),
        ("run = ['true']\ntimeout = 'soon'", "timeout: it is a time"),
        ("run = ['true']\nmax-output = 0", "max-output: it is a number from 1"),
        ("run = ['true']\nmax-running = 0", "max-running: it is a number from 1 to 64, not 0"),
        ("run = ['true']\nmax-running = 65", "max-running: it is a number from 1 to 64, not 65"),
        (
            r#"run = ['true']
            description = "a\u001b[31m""#,
            "description: it is one line",
        ),
    ];
    for (lines, expected) in cases {
        let error = refused(lines);
        assert!(error.starts_with(&format!("actions.it: {expected}")), "{lines}: {error}");
    }
    load("[it]\nrun = ['true']\ntimeout = '60m'\nmax-running = 64").unwrap();
}

#[test]
fn a_key_that_is_not_known_is_refused() {
    let parsed = toml::from_str::<BTreeMap<String, ActionConfig>>("[it]\nrun = ['ls']\nrunn = 1");
    assert!(parsed.unwrap_err().to_string().contains("unknown field `runn`"));
    assert!(toml::from_str::<BTreeMap<String, ActionConfig>>("[it]\nusers = ['a']").is_err());
}
