//! The catalogue is true of the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::CATALOGUE;

/// The names of the tests in a source below `tests/tests/`.
fn tests_in(file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let name = |line: &str| Some(line.split_once("fn ")?.1.split_once('(')?.0.to_owned());
    let is_test = |line: &str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.windows(2).filter(|pair| is_test(pair[0]));
    pairs.filter_map(|pair| name(pair[1])).collect()
}

#[test]
fn every_row_has_a_test_that_is_there() {
    let mut seen = BTreeSet::new();
    for (row, file, test) in CATALOGUE {
        assert!(tests_in(file).contains(*test), "{row}: no {test} in {file}");
        assert!(seen.insert((file, test)), "{row}: {test} stands for two");
    }
}

#[test]
fn every_test_here_belongs_to_a_row() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults");
    let mut looked_at = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = format!("faults/{name}");
        if name == "catalogue.rs" {
            continue;
        }
        for test in tests_in(&file) {
            let listed = |(_, of, name): &(&str, &str, &str)| *of == file && *name == test;
            assert!(CATALOGUE.iter().any(listed), "{test} of {file}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 10, "{looked_at}");
}
