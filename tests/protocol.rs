//! `docs/protocol.md` tells the truth: its transcripts are replayed against the server, its tables
//! compared with the code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

mod support;

use std::{collections::BTreeSet, fs, path::Path};

use support::{Raw, TestDir, Towd};
use towpath::{
    digest::{Engine, Md5Digest, SEGMENT_BYTES, TreeHasher},
    wire::{Code, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, Reply, frame_bytes},
};

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md")).unwrap()
}

/// The cells of the table rows that `begins` recognises by their first cell.
fn rows(begins: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let page = page();
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines = page.lines().filter(|line| line.starts_with('|'));
    lines.map(cells).filter(|cells| begins(&cells[0])).collect()
}

#[test]
fn every_reply_code_is_documented_under_its_name() {
    let number = |cell: &str| cell.len() == 3 && cell.bytes().all(|byte| byte.is_ascii_digit());
    let documented: BTreeSet<(String, String)> =
        rows(number).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known: BTreeSet<(String, String)> = Code::ALL
        .iter()
        .map(|code| (format!("{:03}", code.number()), format!("{code:?}")))
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn the_test_vectors_of_the_tree_are_right() {
    let vectors = rows(|cell| matches!(cell, "empty" | "`a`" | "zeros" | "byte i is i mod 251"));
    assert_eq!(vectors.len(), 7);
    for row in vectors {
        let length: usize = row[1].parse().unwrap();
        let bytes: Vec<u8> = match &*row[0] {
            "`a`" => vec![b'a'],
            "byte i is i mod 251" => (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect(),
            _ => vec![0; length],
        };
        let mut tree = TreeHasher::new();
        tree.update(&Engine::new(), &bytes);
        let segments: Vec<String> = bytes
            .chunks(usize::try_from(SEGMENT_BYTES).unwrap())
            .map(|segment| {
                let mut leaves = Vec::new();
                Engine::scalar().leaves(segment, &mut leaves);
                format!("`{}`", towpath::digest::segment_digest(&leaves))
            })
            .collect();
        assert_eq!(format!("`{}`", tree.finish().root), row[2], "{row:?}");
        assert_eq!(segments.join(" "), row[3], "{row:?}");
    }
}

#[test]
fn the_transcripts_are_what_the_server_says() {
    let page = page();
    let transcripts: Vec<&str> = page
        .split("```transcript\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(transcripts.len() >= 5);
    for transcript in transcripts {
        replay(transcript);
    }
}

fn replay(transcript: &str) {
    let dir = TestDir::new();
    for line in transcript.lines() {
        if let Some(file) = line.strip_prefix("# file ") {
            let (name, bytes) = file.split_once(' ').unwrap();
            fs::write(dir.join(name), unquote(bytes)).unwrap();
        }
    }
    let towd = Towd::start_in(dir.path(), [""; 0]);
    let mut peer = Raw::connect(towd.addr());
    for line in transcript.lines().filter(|line| !line.starts_with('#')) {
        let (who, what) = line.split_at(2);
        let what = what.trim_start();
        match who {
            "C:" => peer.send(format!("{what}\n").as_bytes()),
            "C|" => peer.send(sent_frame(what)),
            "S:" => {
                let said = peer.read_line();
                assert!(matches(what, &said), "{line}\nbut the server said: {said}");
            }
            "S|" => assert_eq!(read_frame(&mut peer), what, "{line}"),
            _ => panic!("no such line: {line}"),
        }
    }
}

/// Whether a line fits a pattern in which `*` stands for any value of a field.
fn matches(pattern: &str, said: &str) -> bool {
    let (wanted, found): (Vec<_>, Vec<_>) =
        (pattern.split(' ').collect(), said.trim_end().split(' ').collect());
    wanted.len() == found.len()
        && wanted.iter().zip(found).all(|(wanted, found)| match wanted.strip_suffix('*') {
            Some(key) => found.len() > key.len() && found.starts_with(key),
            None => *wanted == found,
        })
}

fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap()
}

fn digest(text: &str) -> Md5Digest {
    text.parse().unwrap()
}

fn sent_frame(text: &str) -> Vec<u8> {
    let (kind, rest) = text.split_once(' ').unwrap();
    let words: Vec<&str> = rest.split(' ').collect();
    match kind {
        "data" => {
            let (offset, bytes) = rest.split_once(' ').unwrap();
            let bytes = unquote(bytes).as_bytes();
            let length = u32::try_from(bytes.len()).unwrap();
            let offset = offset.parse().unwrap();
            let header = FrameHeader { kind: FrameKind::Data, length, offset };
            [&header.to_bytes()[..], bytes].concat()
        }
        "segment" => {
            let segment = words[0].parse().unwrap();
            frame_bytes(&Frame::Segment { segment, digest: digest(words[1]) })
        }
        "end" => frame_bytes(&Frame::End {
            size: words[0].parse().unwrap(),
            root: digest(words[1]),
            md5: words.get(2).map(|md5| digest(md5)),
        }),
        "abort" => frame_bytes(&Frame::Abort(Reply::parse(unquote(rest).as_bytes()).unwrap())),
        _ => panic!("no such frame: {text}"),
    }
}

fn read_frame(peer: &mut Raw) -> String {
    let header: [u8; FRAME_HEADER_BYTES] = peer.read_bytes(FRAME_HEADER_BYTES).try_into().unwrap();
    let header = FrameHeader::parse(&header).unwrap();
    let payload = peer.read_bytes(header.length as usize);
    let hex = |bytes: &[u8]| Md5Digest(bytes.try_into().unwrap()).to_string();
    match header.kind {
        FrameKind::Data => {
            format!("data {} \"{}\"", header.offset, String::from_utf8(payload).unwrap())
        }
        FrameKind::Segment => {
            format!("segment {} {}", header.offset / SEGMENT_BYTES, hex(&payload))
        }
        FrameKind::End => {
            let digests: Vec<String> = payload.chunks(16).map(hex).collect();
            format!("end {} {}", header.offset, digests.join(" "))
        }
        FrameKind::Abort => format!("abort \"{}\"", String::from_utf8(payload).unwrap()),
    }
}
