//! A table makes the tar it was made of again.

use super::*;
use crate::layer::digest::DigestSink;
use crate::layer::pack;

fn header(name: &[u8], kind: u8, size: u64, time: u64, form: u8) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(format!("{time:011o}").as_bytes());
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    let sum = checksum(&block, form);
    block[CHECKSUM].copy_from_slice(&sum);
    block
}

fn file(tar: &mut Vec<u8>, name: &[u8], content: &[u8], form: u8) {
    tar.extend(header(name, b'0', content.len() as u64, 1_700_000_000, form));
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

/// The tar that a table and the contents make.
fn restored(table: &Table, tar: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut cursor = table.cursor();
    while let Some(piece) = cursor.next(&mut out).unwrap() {
        if let Piece::Content(size, sum) = piece {
            let content = &tar[out.len()..out.len() + usize::try_from(size).unwrap()];
            assert_eq!(Sum::of(content), sum);
            out.extend_from_slice(content);
        }
    }
    out
}

#[test]
fn any_tar_is_made_again_byte_by_byte() {
    let mut tar = Vec::new();
    tar.extend(header(b"dir/", b'5', 0, 5, FORMS[0]));
    file(&mut tar, b"dir/a", b"hello", FORMS[0]);
    file(&mut tar, b"dir/b", &[7; 512], FORMS[1]);
    file(&mut tar, b"dir/empty", b"", FORMS[1]);
    file(&mut tar, b"dir/c", &vec![9; 300_000], FORMS[0]);
    tar.extend(header(b"pax", b'x', 20, 0, FORMS[1]));
    tar.extend_from_slice(b"20 path=dir/another\n");
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    file(&mut tar, b"short", b"x", FORMS[0]);
    // Whatever follows the end is part of the digest too.
    tar.resize(tar.len() + 10_240, 0);
    tar.extend_from_slice(b"and some bytes after the end");
    tar.resize(tar.len() + 300_001, 3);

    let table = record(io::BufReader::with_capacity(777, &tar[..])).unwrap();
    assert!(restored(&table, &tar) == tar);
    let entries = table.entries().unwrap();
    let paths: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry.path)).collect();
    assert_eq!(paths, ["dir/a", "dir/b", "dir/c", "dir/another"]);
    assert!(entries.iter().all(|entry| entry.is_plain));

    let again = Table::from_bytes(&table.to_bytes().unwrap()).unwrap();
    assert_eq!(again, table);
    let columns = table.columns().map(<[u8]>::to_vec);
    assert_eq!(Table::of_columns(columns).unwrap(), table);
}

#[test]
fn new_times_change_the_column_of_times_alone() {
    let tar = |time: u64| {
        let mut tar = Vec::new();
        for number in 0..50 {
            tar.extend(header(format!("file{number}").as_bytes(), b'0', 1, time + number, FORMS[1]));
            tar.push(b'x');
            tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        }
        record(&tar[..]).unwrap()
    };
    let (old, new) = (tar(1000), tar(2000));
    assert_eq!(old.columns()[0], new.columns()[0]);
    assert_ne!(old.columns()[1], new.columns()[1]);
    assert_eq!(old.columns()[2], new.columns()[2]);
    assert!(old.columns()[0].len() < 50 * 80, "{}", old.columns()[0].len());
}

#[test]
fn what_the_unpacked_layer_does_not_have_is_not_plain() {
    let mut tar = Vec::new();
    file(&mut tar, b"twice", b"first", FORMS[0]);
    file(&mut tar, b"once", b"kept", FORMS[0]);
    file(&mut tar, b"twice", b"second", FORMS[0]);
    file(&mut tar, b"gone/below", b"lost", FORMS[0]);
    tar.extend(header(b"gone", b'2', 0, 0, FORMS[0]));
    file(&mut tar, b".wh.hidden", b"ignored", FORMS[0]);
    tar.resize(tar.len() + 1024, 0);
    let table = record(&tar[..]).unwrap();
    assert!(restored(&table, &tar) == tar);
    let entries = table.entries().unwrap();
    let plain: Vec<_> = entries.iter().filter(|entry| entry.is_plain).map(|entry| &entry.path[..]).collect();
    assert_eq!(plain, [b"once"]);
}

#[test]
fn what_is_no_table_is_refused() {
    let mut tar = Vec::new();
    file(&mut tar, b"a", b"hello", FORMS[0]);
    tar.resize(tar.len() + 1024, 0);
    let table = record(&tar[..]).unwrap();
    let bytes = table.to_bytes().unwrap();
    for length in 0..bytes.len() {
        assert!(Table::from_bytes(&bytes[..length]).is_err(), "{length}");
    }
    let [shape, times, sums] = table.columns().map(<[u8]>::to_vec);
    for broken in [
        [shape[..shape.len() - 1].to_vec(), times.clone(), sums.clone()],
        [shape.clone(), times[1..].to_vec(), sums.clone()],
        [shape.clone(), times.clone(), sums[1..].to_vec()],
        [shape.clone(), times.clone(), [&sums[..], &[0; 32]].concat()],
        [vec![RAW, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Vec::new(), Vec::new()],
        [vec![RAW, 4, 0, 5], Vec::new(), Vec::new()],
        [vec![CONTENT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Vec::new(), vec![0; 32]],
    ] {
        assert!(Table::of_columns(broken).is_err());
    }
    // A table with a content where no member has one is none, however well it is formed.
    let stray = Table::of_columns([vec![CONTENT, 3], Vec::new(), vec![0; 32]]).unwrap();
    assert!(stray.entries().is_err());
}

#[test]
fn the_table_of_a_directory_is_that_of_its_tar() {
    let directory = tempfile::tempdir().unwrap();
    let long = "long".repeat(60);
    std::fs::create_dir(directory.path().join("d")).unwrap();
    for (name, content) in
        [("a", "hello"), ("d/empty", ""), ("large", &"l".repeat(700_000)), (long.as_str(), "long")]
    {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    std::fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
    let root = std::fs::File::open(directory.path()).unwrap().into();
    let mut tar = Vec::new();
    pack::pack(&root, &mut tar, pack::Treatment::Read).unwrap();
    let mut sink = DigestSink::default();
    pack::pack_into(&root, &mut sink, pack::Treatment::Read).unwrap();
    let (diff, table) = sink.finish().unwrap();
    let table = table.unwrap();
    assert_eq!(diff, crate::id::Digest::of(&tar));
    assert_eq!(table, record(&tar[..]).unwrap());
    assert!(restored(&table, &tar) == tar);
}
