//! The rules of the house that a compiler does not know, as tests. Each names file and line.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Longer than this, and a file has more than one purpose.
const SOURCE_LINES_MAX: usize = 700;

#[test]
fn the_pure_layers_touch_no_socket_file_or_clock() {
    let forbidden = [
        "std::net",
        "std::fs",
        "mio",
        "rustix",
        "socket2",
        "Instant::now",
        "std::time::SystemTime",
        "SystemTime",
    ];
    assert_layers_name_none_of(&["wire", "session", "digest"], &forbidden);
    // Of these the time is handed in, as well.
    let alone = ["src/progress.rs", "src/bucket.rs"].map(|path| root().join(path));
    assert_files_name_none_of("pure", alone.to_vec(), &forbidden);
    // Addresses are handed in; `file` is what touches the user file.
    let but_addresses: Vec<_> =
        forbidden.into_iter().filter(|name| *name != "std::net").chain(AUTH_SOCKETS).collect();
    let pure = rust_files("src/auth").into_iter().filter(|path| !path.ends_with("auth/file.rs"));
    assert_files_name_none_of("auth", pure.filter(|path| !is_test(path)).collect(), &but_addresses);
}

/// What of `std::net` is more than an address.
const AUTH_SOCKETS: [&str; 4] =
    ["std::net::TcpStream", "std::net::TcpListener", "std::net::UdpSocket", "ToSocketAddrs"];

/// A file of tests, which may look at a clock to have a time to begin with.
fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

#[test]
fn the_store_touches_no_socket() {
    assert_layers_name_none_of(&["store"], &["std::net", "mio", "socket2"]);
}

#[test]
fn dependencies_point_down_from_server_and_client_only() {
    let layers = ["store", "session", "wire", "digest", "auth"];
    assert_layers_name_none_of(&layers, &["crate::server", "crate::client"]);
}

#[test]
fn the_client_needs_no_proc() {
    let names = |path: &PathBuf| read(path).contains("/proc/");
    let named: Vec<_> = rust_files("src/client").into_iter().filter(names).collect();
    assert_none(&named.iter().map(|path| place(path, 1)).collect::<Vec<_>>());
}

#[test]
fn every_limit_is_used() {
    let limits = root().join("src/limits.rs");
    let others: Vec<String> = rust_files("src")
        .iter()
        .filter(|path| **path != limits)
        .map(|path| blanked(&read(path), Blank::Comments))
        .collect();
    let text = blanked(&read(&limits), Blank::CommentsAndStrings);
    let mut defined = 0;
    let mut unused = Vec::new();
    for (number, line) in numbered(&text) {
        let Some((_, rest)) = line.trim_start().split_once("pub const ") else {
            continue;
        };
        let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
        if name == "fn" {
            continue;
        }
        defined += 1;
        if others.iter().all(|code| places(code, &name).is_empty()) {
            unused.push(format!("{}: nothing uses the limit {name}", place(&limits, number)));
        }
    }
    assert!(defined > 0, "src/limits.rs: no `pub const` found, so this test proves nothing");
    assert_none(&unused);
}

#[test]
fn every_source_file_says_first_what_it_is_for() {
    let silent = rust_files("src").into_iter().filter(|path| !read(path).starts_with("//!"));
    let silent: Vec<_> =
        silent.map(|path| format!("{}: does not start with //!", place(&path, 1))).collect();
    assert_none(&silent);
}

#[test]
fn no_source_file_is_longer_than_its_purpose() {
    let mut long = Vec::new();
    for path in rust_files("src") {
        let lines = read(&path).lines().count();
        if lines > SOURCE_LINES_MAX {
            let place = place(&path, SOURCE_LINES_MAX + 1);
            long.push(format!("{place}: {lines} lines, at most {SOURCE_LINES_MAX}"));
        }
    }
    assert_none(&long);
}

#[test]
fn every_relative_link_in_the_documentation_leads_somewhere() {
    let mut pages = files_below(&root().join("docs"));
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.push(root().join("README.md"));
    let mut broken = Vec::new();
    for page in pages {
        let text = read(&page);
        for (number, target) in relative_links(&text) {
            let folder = page.parent().expect("a page is in a folder");
            if !folder.join(&target).exists() {
                broken.push(format!("{}: no file {target}", place(&page, number)));
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn every_test_that_the_page_on_security_names_is_there() {
    let page = root().join("docs/security.md");
    let text = read(&page);
    let mut code = String::new();
    for path in ["src", "tests"].into_iter().flat_map(rust_files) {
        code.push_str(&read(&path));
    }
    let mut named = 0;
    let mut missing = Vec::new();
    for (number, line) in numbered(&text).filter(|(_, line)| is_row(line)) {
        // Of the words in backticks, those that are names of tests have several parts.
        let words = line.split('`').skip(1).step_by(2);
        for name in words.filter(|word| word.matches('_').count() > 2 || word.ends_with("_TESTS")) {
            named += 1;
            if !code.contains(&format!("fn {name}(")) {
                missing.push(format!("{}: no test {name}", place(&page, number)));
            }
        }
    }
    assert!(named > 50, "only {named} tests are named");
    assert_none(&missing);
}

/// Whether a line is a row of the tables from danger to test: `| A1 | ...`.
fn is_row(line: &str) -> bool {
    let id = line.strip_prefix("| ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let mut chars = id.chars();
    chars.next().is_some_and(|c| c.is_ascii_uppercase()) && chars.as_str().parse::<u8>().is_ok()
}

#[test]
fn no_line_ends_in_white_space() {
    let mut trailing = Vec::new();
    for path in files_below(&root()) {
        // What is not text has no lines.
        let Ok(text) = String::from_utf8(read_bytes(&path)) else {
            continue;
        };
        for (number, line) in numbered(&text) {
            if line.trim_end() != line {
                trailing.push(format!("{}: trailing white space", place(&path, number)));
            }
        }
    }
    assert_none(&trailing);
}

#[test]
fn code_in_comments_and_strings_is_no_code() {
    let code = r##"
        // mio /* mio
        let s = "mio \" // mio"; /* mio /* mio */ mio */ let t = r#"mio " mio"#;
        let (c, d): (char, &'static str) = ('"', "'"); let e = '\''; mio::Poll::new();
    "##;
    let found = places(&blanked(code, Blank::CommentsAndStrings), "mio");
    assert_eq!(found.len(), 1);
    assert_eq!(line_of(code, found[0]), 4);
    assert!(places("semio mio_x mio2 a.rio", "mio").is_empty());
    assert_eq!(places(&blanked(r#"f("{MAX}") // MAX"#, Blank::Comments), "MAX").len(), 1);
}

#[test]
fn a_use_with_braces_names_each_of_its_paths() {
    let code = "use a::B;\nuse std::{\n    io::{self, Read as _},\n    fs,\n};\nuse crate::{x, client::*};";
    let found: Vec<_> =
        used_paths(code).into_iter().map(|(at, path)| (line_of(code, at), path)).collect();
    let expected = [
        (1, "a::B"),
        (3, "std::io::self"),
        (3, "std::io::Read"),
        (4, "std::fs"),
        (6, "crate::x"),
        (6, "crate::client::*"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn links_are_found_outside_code_only() {
    let text = "[a](b.md#c \"t\") `[x](y)` [w](https://w)\n```\n[x](y)\n```\n[i]: d/e.md\n![p](<f g>) [h](#h)";
    let found = relative_links(text);
    assert_eq!(found, [(1, "b.md".into()), (5, "d/e.md".into()), (6, "f g".into())]);
}

/// Fails with the places where one of the layers names one of the paths, in a `use` or elsewhere.
fn assert_layers_name_none_of(layers: &[&str], forbidden: &[&str]) {
    for layer in layers {
        let mut files = rust_files(&format!("src/{layer}"));
        files.extend(Some(root().join(format!("src/{layer}.rs"))).filter(|path| path.exists()));
        assert_files_name_none_of(layer, files, forbidden);
    }
}

fn assert_files_name_none_of(layer: &str, files: Vec<PathBuf>, forbidden: &[&str]) {
    let mut found = Vec::new();
    assert!(!files.is_empty(), "src/{layer}: no such layer, so this test proves nothing");
    for path in files {
        let code = blanked(&read(&path), Blank::CommentsAndStrings);
        let used = used_paths(&code);
        for name in forbidden {
            let inside = format!("{name}::");
            let in_use = used
                .iter()
                .filter(|(_, path)| path == name || path.starts_with(&inside))
                .map(|&(at, _)| at);
            let mut lines: Vec<_> = places(&code, name)
                .into_iter()
                .chain(in_use)
                .map(|at| line_of(&code, at))
                .collect();
            lines.sort_unstable();
            lines.dedup();
            let report = |line| format!("{}: {layer} must not know {name}", place(&path, line));
            found.extend(lines.into_iter().map(report));
        }
    }
    assert_none(&found);
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `file:line`, the file relative to the repository.
fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.strip_prefix(root()).unwrap_or(path).display())
}

fn read(path: &Path) -> String {
    String::from_utf8(read_bytes(path)).unwrap_or_else(|_| unreadable(path, "not UTF-8"))
}

fn read_bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| unreadable(path, &error.to_string()))
}

#[expect(clippy::panic, reason = "a file that cannot be read cannot be found tidy")]
fn unreadable(path: &Path, why: &str) -> ! {
    panic!("{}: {why}", path.display())
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(index, line)| (index + 1, line))
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = files_below(&root().join(folder));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
}

/// All files below a folder, without what git does not keep. A folder that is not there is empty.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let ignored = read(&root().join(".gitignore"));
    let mut skipped: Vec<PathBuf> =
        ignored.lines().filter_map(|line| Some(root().join(line.strip_prefix('/')?))).collect();
    skipped.push(root().join(".git"));
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.expect("a folder of the repository can be listed");
            let kind = entry.file_type().expect("an entry has a type");
            if skipped.contains(&entry.path()) {
                continue;
            } else if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `name` stands as a word of its own.
fn places(code: &str, name: &str) -> Vec<usize> {
    let alone = |&at: &usize| {
        !code[..at].ends_with(is_word) && !code[at + name.len()..].starts_with(is_word)
    };
    code.match_indices(name).map(|(at, _)| at).filter(alone).collect()
}

/// The paths that `use` declarations name, braces written out, each with its place.
fn used_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for at in places(code, "use") {
        let start = at + "use".len();
        let end = code[start..].find(';').map_or(code.len(), |len| start + len);
        write_out("", code, start..end, &mut paths);
    }
    paths
}

fn write_out(prefix: &str, code: &str, tree: Range<usize>, paths: &mut Vec<(usize, String)>) {
    let text = &code[tree.clone()];
    if let (Some(open), Some(close)) = (text.find('{'), text.rfind('}')) {
        let prefix = format!("{prefix}{}", text[..open].trim());
        let mut depth = 0;
        let mut start = open + 1;
        for (at, c) in text.char_indices().filter(|&(at, _)| open < at && at <= close) {
            if (c == ',' && depth == 0) || at == close {
                write_out(&prefix, code, tree.start + start..tree.start + at, paths);
                start = at + 1;
            }
            depth += i32::from(c == '{') - i32::from(c == '}');
        }
    } else if let Some(name) = text.split_whitespace().next() {
        let blank = text.len() - text.trim_start().len();
        paths.push((tree.start + blank, format!("{prefix}{name}")));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blank {
    Comments,
    CommentsAndStrings,
}

/// The same text with blanks for what is no code; every place and line stays where it is.
fn blanked(source: &str, what: Blank) -> String {
    let mut code = source.as_bytes().to_vec();
    let mut at = 0;
    while at < source.len() {
        let (end, string) = match token(source, at) {
            Token::Other(end) => {
                at = end;
                continue;
            }
            Token::Comment(end) => (end, false),
            Token::Text(end) => (end, true),
        };
        if !string || what == Blank::CommentsAndStrings {
            code[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at = end;
    }
    String::from_utf8(code).expect("whole characters were replaced by blanks")
}

/// What starts at some place, and where it ends.
enum Token {
    Comment(usize),
    /// A literal of text or of one character.
    Text(usize),
    Other(usize),
}

fn token(source: &str, at: usize) -> Token {
    let rest = &source[at..];
    let until = |pattern: &str, from: usize| {
        rest[from..].find(pattern).map_or(source.len(), |len| at + from + len + pattern.len())
    };
    let first = rest.chars().next().unwrap_or_default();
    if rest.starts_with("//") {
        return Token::Comment(rest.find('\n').map_or(source.len(), |len| at + len));
    }
    if rest.starts_with("/*") {
        return Token::Comment(at + block_comment_len(rest));
    }
    if first == '"' {
        return Token::Text(at + quoted_len(rest, b'"'));
    }
    // A quote without its pair right behind one character starts a lifetime.
    if first == '\'' {
        let mut chars = rest.char_indices().skip(1);
        let escaped = chars.next().is_some_and(|(_, c)| c == '\\');
        return match chars.next() {
            _ if escaped => Token::Text(at + quoted_len(rest, b'\'')),
            Some((closing, '\'')) => Token::Text(at + closing + 1),
            _ => Token::Other(at + 1),
        };
    }
    let hashes = rest[1.min(rest.len())..].bytes().take_while(|&byte| byte == b'#').count();
    let raw = first == 'r' && rest[1 + hashes..].starts_with('"');
    if raw && !source[..at].trim_end_matches(['b', 'c']).ends_with(is_word) {
        return Token::Text(until(&format!("\"{}", "#".repeat(hashes)), hashes + 2));
    }
    Token::Other(at + first.len_utf8())
}

/// Comments nest.
fn block_comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let step = &text.as_bytes()[at..];
        if step.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if step.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn quoted_len(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            _ if byte == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The files that a page links to, with the numbers of the lines.
fn relative_links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    let mut in_fence = false;
    for (number, line) in numbered(text) {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        if in_fence {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: Vec<&str> = line.split('`').step_by(2).collect();
        let prose = prose.join("`");
        let inline = prose.split("](").skip(1);
        let definition = prose.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        for link in inline.chain(definition.map(|(_, target)| target)) {
            let link = link.trim_start();
            let target = match link.strip_prefix('<') {
                Some(link) => link.split('>').next(),
                None => link.split([')', ' ']).next(),
            };
            let file = target.and_then(|target| target.split('#').next()).unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:") {
                links.push((number, file.to_owned()));
            }
        }
    }
    links
}
