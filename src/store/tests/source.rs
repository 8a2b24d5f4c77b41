//! Files that are read to be sent.

use super::{
    super::{ReadNow, Source},
    *,
};

#[test]
fn reads_end_at_the_end_and_nowhere_before() {
    let store = Store::new();
    let bytes = bytes(1, 3 * LEAF + 5);
    fs::write(store.at("f"), &bytes).unwrap();
    let source = Source::open(&store.root, &path("f")).unwrap();
    assert_eq!(source.identity().size, bytes.len() as u64);
    let mut buffer = vec![0; 4 * LEAF];
    assert_eq!(source.read(0, &mut buffer).unwrap(), bytes.len());
    assert_eq!(&buffer[..bytes.len()], bytes);
    assert_eq!(source.read(bytes.len() as u64, &mut buffer).unwrap(), 0);
    assert_eq!(source.try_clone().unwrap().read(7, &mut buffer[..9]).unwrap(), 9);
    assert_eq!(&buffer[..9], &bytes[7..16]);
    match source.read_now(LEAF_BYTES, &mut buffer[..LEAF]).unwrap() {
        ReadNow::Bytes(have) => assert_eq!(&buffer[..have], &bytes[LEAF..LEAF + have]),
        ReadNow::Cold => println!("no read without waiting on this file system"),
    }
}

#[test]
fn what_is_not_in_memory_is_fetched_and_is_there_then() {
    let store = Store::new();
    let bytes = bytes(2, 9 * LEAF + 5);
    fs::write(store.at("f"), &bytes).unwrap();
    let file = fs::File::open(store.at("f")).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let source = Source::open(&store.root, &path("f")).unwrap();
    let mut buffer = vec![0; 4 * LEAF];
    if source.read_now(0, &mut buffer).unwrap() == ReadNow::Cold {
        assert_eq!(source.fetch(0, &mut buffer).unwrap(), buffer.len());
    }
    match source.read_now(0, &mut buffer).unwrap() {
        ReadNow::Bytes(have) => assert_eq!(&buffer[..have], &bytes[..have]),
        ReadNow::Cold => println!("no read without waiting on this file system"),
    }
    // Of a chunk that ends behind the file, there is what the file has.
    let at = 8 * LEAF;
    source.fetch(at as u64, &mut buffer).unwrap();
    match source.read_now(at as u64, &mut buffer).unwrap() {
        ReadNow::Bytes(have) => assert_eq!(&buffer[..have], &bytes[at..at + have]),
        ReadNow::Cold => println!("no read without waiting on this file system"),
    }
}

#[test]
fn whoever_changes_the_bytes_changes_the_tag() {
    let store = Store::new();
    fs::write(store.at("f"), b"one").unwrap();
    let open = || Source::open(&store.root, &path("f")).unwrap();
    let source = open();
    let tag = source.identity().tag();
    assert!(source.is_unchanged());
    assert_eq!(open().identity().tag(), tag);
    let mtime = fs::metadata(store.at("f")).unwrap().modified().unwrap();
    // Clocks of files tick a few hundred times a second.
    while source.is_unchanged() {
        fs::write(store.at("f"), b"two").unwrap();
        let file = fs::File::options().write(true).open(store.at("f")).unwrap();
        file.set_modified(mtime).unwrap();
    }
    assert_ne!(open().identity().tag(), tag);
    let source = open();
    fs::write(store.at("g"), b"two").unwrap();
    fs::rename(store.at("g"), store.at("f")).unwrap();
    assert_ne!(open().identity().tag(), source.identity().tag());
}

#[test]
fn a_read_error_yields_no_bytes() {
    let store = Store::new();
    fs::write(store.at("f"), b"one").unwrap();
    let source = Source::open(&store.root, &path("f")).unwrap();
    // Where no file can have bytes, a read is an error of the system.
    let mut buffer = [0; 10];
    source.read(u64::MAX, &mut buffer).unwrap_err();
    let now = source.read_now(u64::MAX, &mut buffer);
    assert!(!matches!(now, Ok(ReadNow::Bytes(_))), "{now:?}");
}
