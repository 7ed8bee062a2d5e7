//! Bad files and the rule each breaks; what is read equals what was written; no bytes make the reader panic.

use super::*;
use crate::format::ElementFormat;
use proptest::prelude::*;

fn open(bytes: &[u8]) -> Result<ModelFile, WeightsError> {
    ModelFile::from_bytes(Path::new("x.gguf"), bytes.to_vec())
}

/// The fault of a file that must be refused.
fn fault(bytes: &[u8]) -> String {
    match open(bytes) {
        Ok(_) => panic!("the file was accepted"),
        Err(error) => error.to_string(),
    }
}

/// A small file with every kind of value and three tensors.
fn small() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer
        .string("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .i32("some.negative", -3)
        .f32("llama.rope.freq_base", 10_000.0)
        .bool("tokenizer.ggml.add_bos_token", true)
        .string_array("tokenizer.ggml.tokens", &["<s>", "a", "é"])
        .i32_array("tokenizer.ggml.token_type", &[3, 1, 1])
        .f32_array("tokenizer.ggml.scores", &[0.0, -1.0, -2.5])
        .u32_array("some.numbers", &[1, 2])
        .bool_array("some.flags", &[true, false])
        .tensor_f32("output_norm.weight", &[3], &[1.0, 2.0, 3.0])
        .tensor("blk.0.a", &[2, 32], ElementFormat::Q8_0, vec![7; 68])
        .tensor_f32("blk.0.b", &[2, 2, 2], &[0.5; 8]);
    writer.to_bytes().unwrap()
}

// Hand-made files, for what the writer refuses to write.
fn header(version: u32, n_tensors: u64, n_entries: u64) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend(n_tensors.to_le_bytes());
    bytes.extend(n_entries.to_le_bytes());
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn entry(key: &str, value_type: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &value_type.to_le_bytes(), value].concat()
}

fn array(items: u32, len: u64, bytes: &[u8]) -> Vec<u8> {
    [&items.to_le_bytes()[..], &len.to_le_bytes(), bytes].concat()
}

fn with_entries(entries: &[Vec<u8>]) -> Vec<u8> {
    [header(3, 0, entries.len() as u64), entries.concat(), vec![0; 64]].concat()
}

fn described(name: &str, dimensions: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = dimensions.iter().flat_map(|size| size.to_le_bytes()).collect();
    [
        &text(name)[..],
        &(dimensions.len() as u32).to_le_bytes(),
        &sizes,
        &id.to_le_bytes(),
        &offset.to_le_bytes(),
    ]
    .concat()
}

/// A file with these tensors and `data_bytes` of data.
fn with_tensors(tensors: &[Vec<u8>], data_bytes: usize) -> Vec<u8> {
    let mut bytes = [header(3, tensors.len() as u64, 0), tensors.concat()].concat();
    bytes.resize(bytes.len().next_multiple_of(32) + data_bytes, 0);
    bytes
}

#[test]
fn what_is_written_is_read() {
    let bytes = small();
    let file = open(&bytes).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.string("general.architecture").unwrap(), Some("llama"));
    assert_eq!(metadata.u32("llama.block_count").unwrap(), Some(2));
    assert_eq!(metadata.f32("llama.rope.freq_base").unwrap(), Some(10_000.0));
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert_eq!(metadata.string_array("tokenizer.ggml.tokens").unwrap(), Some(vec!["<s>", "a", "é"]));
    assert_eq!(metadata.i32_array("tokenizer.ggml.token_type").unwrap(), Some(vec![3, 1, 1]));
    assert_eq!(metadata.u32_array("tokenizer.ggml.token_type").unwrap(), Some(vec![3, 1, 1]));
    assert_eq!(metadata.f32_array("tokenizer.ggml.scores").unwrap(), Some(vec![0.0, -1.0, -2.5]));
    assert_eq!(metadata.bool_array("some.flags").unwrap(), Some(vec![true, false]));
    assert_eq!(metadata.u32("not.there").unwrap(), None);
    assert_eq!(metadata.string_array("not.there").unwrap(), None);
    assert_eq!(metadata.entries().map(|(key, _)| key).nth(2), Some("some.negative"));

    let names: Vec<&str> = file.tensors().map(|view| view.name).collect();
    assert_eq!(names, ["output_norm.weight", "blk.0.a", "blk.0.b"]);
    let view = file.tensor("blk.0.a").unwrap();
    assert_eq!((view.shape, view.format, view.data), (vec![2, 32], ElementFormat::Q8_0, &[7u8; 68][..]));
    assert_eq!(
        file.tensor("output_norm.weight").unwrap().data,
        [1f32, 2.0, 3.0].map(f32::to_le_bytes).concat()
    );
    assert!(file.tensor("blk.1.a").is_none());
    assert_eq!(file.digest(), Digest::of(&bytes));
    assert_eq!(file.file_bytes(), bytes.len() as u64);
    file.scan_finite().unwrap();
}

#[test]
fn a_file_on_disk_is_mapped() {
    let path = std::env::temp_dir().join(format!("demeanor-gguf-{}.gguf", std::process::id()));
    std::fs::write(&path, small()).unwrap();
    let file = ModelFile::open(&path).unwrap();
    assert_eq!(file.tensors().count(), 3);
    std::fs::write(&path, b"GGUF").unwrap();
    let error = ModelFile::open(&path).err().unwrap().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(error.contains("truncated header: 4 bytes"), "{error}");
    assert!(ModelFile::open(&path).err().unwrap().to_string().starts_with("cannot open"));
}

#[test]
fn a_copy_can_be_edited() {
    let file = open(&small()).unwrap();
    let unchanged = GgufWriter::copy_of(&file).to_bytes().unwrap();
    assert_eq!(unchanged, small());
    let mut writer = GgufWriter::copy_of(&file);
    writer.f32("llama.rope.freq_base", 5.0).remove_key("some.flags").remove_tensor("blk.0.a");
    writer.tensor_f32("output_norm.weight", &[2], &[4.0, 5.0]);
    let edited = open(&writer.to_bytes().unwrap()).unwrap();
    assert_eq!(edited.metadata().f32("llama.rope.freq_base").unwrap(), Some(5.0));
    assert!(edited.metadata().get("some.flags").is_none());
    assert_eq!(edited.tensors().map(|view| view.elements()).collect::<Vec<_>>(), [2, 8]);
}

#[test]
fn a_tensor_that_does_not_fit_its_shape_is_not_written() {
    for (shape, format, bytes) in [
        (&[3][..], ElementFormat::F32, 8),
        (&[31], ElementFormat::Q4_0, 18),
        (&[usize::MAX, 32], ElementFormat::Q4_0, 18),
        (&[], ElementFormat::F32, 4),
    ] {
        let mut writer = GgufWriter::new();
        writer.tensor("w", shape, format, vec![0; bytes]);
        let error = writer.to_bytes().unwrap_err().to_string();
        assert!(error.contains("`w`") && error.contains("do not make a tensor"), "{error}");
    }
}

#[test]
fn metadata_is_read_by_declared_type() {
    let u8s = array(0, 3, &[0, 1, 2]);
    let file = open(&with_entries(&[
        entry("u64", 10, &7u64.to_le_bytes()),
        entry("u64.big", 10, &(1u64 << 32).to_le_bytes()),
        entry("i8", 1, &[0xff]),
        entry("f64", 12, &1.5f64.to_le_bytes()),
        entry("tokenizer.ggml.scores", 9, &u8s),
        entry("nested", 9, &array(9, 2, &[u8s.clone(), u8s].concat())),
    ]))
    .unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.u32("u64").unwrap(), Some(7));
    assert_eq!(metadata.f32("f64").unwrap(), Some(1.5));
    assert_eq!(metadata.u32_array("tokenizer.ggml.scores").unwrap(), Some(vec![0, 1, 2]));
    assert_eq!(metadata.u32_in("u64", 1..=7).unwrap(), Some(7));
    for (error, message) in [
        (
            metadata.u32("u64.big").err(),
            "`u64.big` is the number U64(4294967296); wanted an integer from 0 to 4294967295",
        ),
        (metadata.u32("i8").err(), "`i8` is the number I8(-1); wanted an integer from 0"),
        (metadata.u32_in("u64", 1..=6).err(), "`u64` is 7; allowed: 1 to 6"),
        (metadata.bool("u64").err(), "`u64` is the number U64(7); wanted a bool"),
        (metadata.string("u64").err(), "wanted a string"),
        (
            metadata.f32_array("tokenizer.ggml.scores").err(),
            "`tokenizer.ggml.scores` is an array of 3 U8; wanted an array of floats",
        ),
        (metadata.string_array("tokenizer.ggml.scores").err(), "wanted an array of strings"),
        (metadata.u32_array("nested").err(), "an array of 2 Array; wanted an array of integers"),
        (metadata.string_array("u64").err(), "wanted an array of strings"),
    ] {
        let error = error.unwrap().to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// Nested arrays, `depth` of them.
fn nest(depth: u32) -> Vec<u8> {
    (1..depth).fold(array(0, 1, &[1]), |inner, _| array(9, 1, &inner))
}

#[test]
fn bad_headers_and_metadata() {
    let repeated = entry("a", 4, &[0; 4]);
    let big_string = [&(1u64 << 30).to_le_bytes()[..], &[b'x'; 10]].concat();
    for (bytes, message) in [
        (vec![], "truncated header: 0 bytes"),
        (b"GGUF".to_vec(), "truncated header: 4 bytes"),
        (vec![b'G'; 23], "truncated header: 23 bytes"),
        ([b"GGML".as_slice(), &[0; 60]].concat(), "not a GGUF file: it starts with \"GGML\""),
        ([b"FUGG".as_slice(), &[0; 60]].concat(), "big-endian"),
        ([b"GGUF".as_slice(), &3u32.to_be_bytes(), &[0; 60]].concat(), "big-endian"),
        (header(1, 0, 0), "GGUF version 1"),
        (header(4, 0, 0), "GGUF version 4"),
        (header(0, 0, 0), "GGUF version 0"),
        (header(3, 1 << 32, 0), "4294967296 tensors; at most 65536"),
        (header(3, 1 << 63, 0), "tensors; at most 65536"),
        (header(3, 0, 1 << 32), "4294967296 metadata entries; at most 65536"),
        (header(3, 60_000, 0), "truncated file: tensors takes 1920000 bytes, 8 are left"),
        (header(3, 0, 60_000), "truncated file: metadata entries takes 780000 bytes, 0 are left"),
        (with_entries(&[repeated.clone(), repeated]), "metadata key `a` occurs twice, at byte 41"),
        (with_entries(&[entry("a", 13, &[0; 8])]), "value type 13 is unknown"),
        (with_entries(&[entry("a", 7, &[2])]), "a bool of value 2"),
        (with_entries(&[entry("a", 9, &array(7, 2, &[1, 2]))]), "a bool of value 2"),
        (with_entries(&[entry("a", 8, &big_string)]), "takes 1073741824 bytes"),
        (with_entries(&[entry("a", 8, &u64::MAX.to_le_bytes())]), "truncated file: a metadata string takes"),
        (with_entries(&[entry("a", 8, &[&1u64.to_le_bytes()[..], &[0xff]].concat())]), "not valid UTF-8"),
        (
            with_entries(&[[&1u64.to_le_bytes()[..], &[0xff; 20]].concat()]),
            "a metadata key is not valid UTF-8",
        ),
        (with_entries(&[entry(&"k".repeat(70_000), 4, &[0; 4])]), "70000 a metadata key; at most 65535"),
        (
            with_entries(&[entry("a", 9, &array(0, (1 << 20) + 1, &[]))]),
            "1048577 array items; at most 1048576",
        ),
        (
            with_entries(&[entry("a", 9, &array(4, 1 << 20, &[]))]),
            "truncated file: array items takes 4194304",
        ),
        (
            with_entries(&[entry("a", 9, &array(8, 1 << 19, &[]))]),
            "truncated file: array items takes 4194304",
        ),
        (with_entries(&[entry("a", 9, &nest(5))]), "nested deeper than 4"),
        (with_entries(&[entry("a", 9, &nest(65))]), "nested deeper than 4"),
    ] {
        let error = fault(&bytes);
        assert!(error.contains(message), "{error:?} lacks {message:?}");
        assert!(error.starts_with("`x.gguf`: ") && error.contains(", at byte "), "{error}");
    }
    assert!(open(&with_entries(&[entry("a", 9, &nest(4))])).is_ok());
    assert!(open(&header(2, 0, 0)).is_ok());
}

#[test]
fn bad_alignments() {
    let key = "general.alignment";
    for value in [0u32, 1, 3, 4, 48, 1 << 17, 1 << 31] {
        let error = fault(&with_entries(&[entry(key, 4, &value.to_le_bytes())]));
        assert!(
            error.contains(&format!("`{key}` is {value}; allowed: powers of two from 8 to 65536")),
            "{error}"
        );
    }
    for (value_type, value) in
        [(5, 32i32.to_le_bytes().to_vec()), (8, text("32")), (10, vec![32, 0, 0, 0, 0, 0, 0, 0])]
    {
        let error = fault(&with_entries(&[entry(key, value_type, &value)]));
        assert!(error.contains("wanted an unsigned 32-bit integer"), "{error}");
    }
    assert!(open(&with_entries(&[entry(key, 4, &64u32.to_le_bytes())])).is_ok());
}

#[test]
fn bad_tensors() {
    const F32: u32 = 0;
    let row = |name, offset| described(name, &[8], F32, offset);
    for (bytes, message) in [
        (with_tensors(&[row("w", 32)], 32), "tensor out of file: `w` needs 32 bytes at 32"),
        (
            with_tensors(&[row("w", 0)], 31),
            "tensor out of file: `w` needs 32 bytes at 0, the file's data ends after 31",
        ),
        (with_tensors(&[row("w", u64::MAX - 31)], 32), "tensor out of file"),
        (with_tensors(&[row("w", u64::MAX - 7)], 32), "no multiple of the alignment 32"),
        (with_tensors(&[row("w", 4)], 64), "`w` is stored at 4, no multiple of the alignment 32"),
        (with_tensors(&[row("a", 0), row("b", 0)], 64), "tensors `a` and `b` overlap"),
        (with_tensors(&[described("a", &[9], F32, 0), row("b", 32)], 64), "tensors `a` and `b` overlap"),
        (with_tensors(&[row("a", 0), row("a", 32)], 64), "tensor `a` occurs twice"),
        (with_tensors(&[described("w", &[], F32, 0), row("b", 32)], 64), "`w` has 0 dimensions; 1 to 4"),
        (with_tensors(&[described("w", &[1; 5], F32, 0)], 64), "`w` has 5 dimensions"),
        (with_tensors(&[[&text("w")[..], &[0xff; 60]].concat()], 64), "`w` has 4294967295 dimensions"),
        (with_tensors(&[described("w", &[1 << 32, 1 << 32], F32, 0)], 64), "shape overflow: tensor `w`"),
        (with_tensors(&[described("w", &[1 << 40, 1 << 40], F32, 0)], 64), "shape overflow"),
        (with_tensors(&[described("w", &[u64::MAX / 4, 1], F32, 0)], 64), "tensor out of file"),
        (with_tensors(&[described("w", &[u64::MAX / 4 + 1, 1], F32, 0)], 64), "shape overflow"),
        (with_tensors(&[described("w", &[4, 0], F32, 0)], 64), "`w` is empty: shape [4, 0]"),
        (
            with_tensors(&[described("w", &[33], 2, 0)], 64),
            "rows of 33 elements are no multiple of the 32 of a Q4_0",
        ),
        (
            with_tensors(&[described("w", &[8], 999, 0)], 64),
            "tensor `w` has element type unknown (id 999); known are F32",
        ),
        (with_tensors(&[described("w", &[32], 20, 0)], 64), "tensor `w` has element type IQ4_NL (id 20)"),
        (
            with_tensors(&[described(&"n".repeat(300), &[8], F32, 0)], 64),
            "300 bytes of a tensor name; at most 256",
        ),
    ] {
        let error = fault(&bytes);
        assert!(error.contains(message), "{error:?} lacks {message:?}");
    }
    let apart = with_tensors(&[row("b", 32), row("a", 0)], 64);
    assert_eq!(open(&apart).unwrap().tensors().count(), 2);
}

#[test]
fn metadata_over_the_limit_is_refused() {
    let item = array(0, 1 << 20, &vec![0; 1 << 20]);
    let entries: Vec<Vec<u8>> = (0..65).map(|index| entry(&format!("k{index}"), 9, &item)).collect();
    assert!(fault(&with_entries(&entries)).contains("metadata takes more than 67108864 bytes"));
    let few = &entries[..63];
    assert!(open(&with_entries(few)).is_ok());
}

/// One block of a format: zeros but for one half float at a place.
fn block(format: ElementFormat, place: usize, bits: u16) -> Vec<u8> {
    let mut bytes = vec![0; format.block_bytes()];
    bytes[place..place + 2].copy_from_slice(&bits.to_le_bytes());
    bytes
}

#[test]
fn non_finite_weights_are_found() {
    const NAN: u16 = 0x7e00;
    const NEGATIVE_INFINITY: u16 = 0xfc00;
    for (format, places) in [
        (ElementFormat::F16, &[0][..]),
        (ElementFormat::Q4_0, &[0]),
        (ElementFormat::Q4_1, &[0, 2]),
        (ElementFormat::Q5_0, &[0]),
        (ElementFormat::Q5_1, &[0, 2]),
        (ElementFormat::Q8_0, &[0]),
        (ElementFormat::Q2_K, &[80, 82]),
        (ElementFormat::Q3_K, &[108]),
        (ElementFormat::Q4_K, &[0, 2]),
        (ElementFormat::Q5_K, &[0, 2]),
        (ElementFormat::Q6_K, &[208]),
    ] {
        for (place, bits) in places.iter().flat_map(|place| [(*place, NAN), (*place, NEGATIVE_INFINITY)]) {
            check_scan(format, &block(format, place, bits), Some(place));
            check_scan(format, &block(format, place, 0x7bff), None);
        }
    }
    check_scan(ElementFormat::F32, &f32::NAN.to_le_bytes(), Some(0));
    check_scan(ElementFormat::F32, &f32::NEG_INFINITY.to_le_bytes(), Some(0));
    check_scan(ElementFormat::F32, &f32::MIN.to_le_bytes(), None);
    check_scan(ElementFormat::BF16, &0x7f80u16.to_le_bytes(), Some(0));
    check_scan(ElementFormat::BF16, &0x7f7fu16.to_le_bytes(), None);
}

/// Puts a block behind 5,000 blocks of zeros and scans the file.
fn check_scan(format: ElementFormat, last: &[u8], expected: Option<usize>) {
    let blocks = 5000;
    let data = [vec![0; blocks * format.block_bytes()], last.to_vec()].concat();
    let mut writer = GgufWriter::new();
    writer.tensor("bad.weight", &[blocks + 1, format.block_len()], format, data);
    let file = open(&writer.to_bytes().unwrap()).unwrap();
    let start =
        file.file_bytes() as usize - (last.len() + blocks * format.block_bytes()).next_multiple_of(32);
    match (file.scan_finite(), expected) {
        (Ok(()), None) => {}
        (Err(error), Some(place)) => {
            let offset = start + blocks * format.block_bytes() + place;
            let wanted = format!("non-finite weight: `bad.weight`, at byte {offset}");
            assert!(error.to_string().contains(&wanted), "{format}: {error}");
        }
        (result, expected) => panic!("{format}: {result:?}, expected {expected:?}"),
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = small();
    let data_end =
        bytes.len() - open(&bytes).unwrap().tensor("blk.0.b").unwrap().data.len().next_multiple_of(32) + 32;
    for length in 0..data_end {
        assert!(open(&bytes[..length]).is_err(), "cut at {length}");
    }
}

/// Reads everything a file offers.
fn read_through(file: &ModelFile) {
    for (key, _) in file.metadata().entries() {
        let metadata = file.metadata();
        let _ = (metadata.string(key), metadata.u32(key), metadata.f32(key), metadata.bool(key));
        let _ = (metadata.string_array(key), metadata.u32_array(key), metadata.i32_array(key));
        let _ = (metadata.f32_array(key), metadata.bool_array(key));
    }
    for view in file.tensors() {
        assert_eq!(view.format.row_bytes(view.elements()), Some(view.data.len()));
    }
    let _ = file.scan_finite();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = small();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(file) = open(&bytes) {
            read_through(&file);
        }
    }

    #[test]
    fn random_bytes_behind_a_header_never_panic(
        n_tensors in 0u64..4,
        n_entries in 0u64..4,
        rest in prop::collection::vec(prop_oneof![Just(0u8), 0u8..16, any::<u8>()], 0..300),
    ) {
        if let Ok(file) = open(&[header(3, n_tensors, n_entries), rest].concat()) {
            read_through(&file);
        }
    }
}
