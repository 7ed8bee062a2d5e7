//! PNG pictures that carry a card: text chunks found, and put in.
//!
//! Only the chunks are walked, each length and checksum checked; no pixel is decoded, so a picture's size in pixels costs
//! nothing.

use super::CardError;
use super::reading::unpacked;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use flate2::Crc;
use flate2::read::ZlibDecoder;

pub const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
/// The chunks of V3 and of V1 and V2, the better one first.
const KEYWORDS: [&str; 2] = ["ccv3", "chara"];
/// Base64 with or without its padding, as the editors write it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One chunk of a picture.
struct Chunk<'a> {
    kind: &'a [u8],
    data: &'a [u8],
    /// With length, kind and checksum.
    whole: &'a [u8],
    /// Where it begins.
    at: usize,
}

/// Chunks up to the end mark.
struct Chunks<'a> {
    bytes: &'a [u8],
    at: usize,
    is_done: bool,
}

fn wrong(offset: usize, rule: impl Into<String>) -> CardError {
    CardError::Png { offset, rule: rule.into() }
}

fn chunks(bytes: &[u8]) -> Result<Chunks<'_>, CardError> {
    match bytes.starts_with(SIGNATURE) {
        true => Ok(Chunks { bytes, at: SIGNATURE.len(), is_done: false }),
        false => Err(wrong(0, "the signature is missing")),
    }
}

impl<'a> Chunks<'a> {
    fn read(&mut self) -> Result<Chunk<'a>, CardError> {
        let at = self.at;
        let rest = &self.bytes[at..];
        let head = rest.get(..8).ok_or_else(|| wrong(at, "it ends before its end mark"))?;
        let (length, kind) = head.split_at(4);
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length > i32::MAX as usize {
            return Err(wrong(at, format!("a chunk of {length} bytes is longer than the format allows")));
        }
        let Some(whole) = rest.get(..length + 12) else {
            let rule =
                format!("a chunk of {length} bytes does not fit into the {} that are left", rest.len());
            return Err(wrong(at, rule));
        };
        let (data, checksum) = whole[8..].split_at(length);
        let mut crc = Crc::new();
        crc.update(&whole[4..8 + length]);
        if crc.sum().to_be_bytes() != checksum {
            return Err(wrong(at, format!("the checksum of the chunk `{}` is wrong", name(kind))));
        }
        if at == SIGNATURE.len() && kind != b"IHDR" {
            return Err(wrong(at, "the first chunk is not `IHDR`"));
        }
        self.at += whole.len();
        self.is_done = kind == b"IEND";
        Ok(Chunk { kind, data, whole, at })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, CardError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let chunk = self.read();
        self.is_done |= chunk.is_err();
        Some(chunk)
    }
}

fn name(kind: &[u8]) -> String {
    kind.escape_ascii().to_string()
}

/// The JSON of the card in a picture: of both chunks the one of V3; of several of a name the first.
pub fn card_in(bytes: &[u8]) -> Result<Vec<u8>, CardError> {
    let mut found: [Option<Vec<u8>>; 2] = [None, None];
    for chunk in chunks(bytes)? {
        let chunk = chunk?;
        let Some(keyword) = keyword(&chunk) else { continue };
        let place = KEYWORDS.iter().position(|known| keyword.eq_ignore_ascii_case(known.as_bytes()));
        let Some(place) = place.filter(|place| found[*place].is_none()) else { continue };
        found[place] = Some(decoded(&content(&chunk)?, KEYWORDS[place])?);
    }
    let [v3, v2] = found;
    v3.or(v2)
        .ok_or_else(|| CardError::Unknown("the picture has neither a `chara` nor a `ccv3` chunk".to_owned()))
}

/// The keyword of a text chunk.
fn keyword<'a>(chunk: &Chunk<'a>) -> Option<&'a [u8]> {
    if ![b"tEXt", b"zTXt", b"iTXt"].iter().any(|kind| chunk.kind == *kind) {
        return None;
    }
    let end = chunk.data.iter().position(|byte| *byte == 0)?;
    Some(&chunk.data[..end])
}

/// The text of a chunk that has a keyword, as it stands or unpacked.
fn content(chunk: &Chunk<'_>) -> Result<Vec<u8>, CardError> {
    let short = || wrong(chunk.at, "a text chunk ends early");
    let after_zero = |data: &[u8]| data.iter().position(|byte| *byte == 0).map(|at| at + 1);
    let data = &chunk.data[after_zero(chunk.data).ok_or_else(short)?..];
    let (is_packed, data) = match chunk.kind {
        b"zTXt" => (true, data.get(1..).ok_or_else(short)?),
        b"iTXt" => {
            // A flag and a method, then a language and a translated keyword, each with a zero behind.
            let (head, rest) = data.split_at_checked(2).ok_or_else(short)?;
            let rest = &rest[after_zero(rest).ok_or_else(short)?..];
            (head[0] == 1, &rest[after_zero(rest).ok_or_else(short)?..])
        }
        _ => (false, data),
    };
    if !is_packed {
        return Ok(data.to_vec());
    }
    let broken = |_| wrong(chunk.at, "a packed text chunk cannot be unpacked");
    unpacked(ZlibDecoder::new(data), "a text chunk of the picture, unpacked", broken)
}

/// Base64 to JSON text.
fn decoded(text: &[u8], chunk: &str) -> Result<Vec<u8>, CardError> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    LENIENT.decode(&text).map_err(|error| CardError::Chunk {
        chunk: chunk.to_owned(),
        rule: format!("is not base64: {error}"),
    })
}

/// The picture with these cards in it, by chunk name; cards that were in it are taken out. The new chunks stand before
/// the pixels, where readers of every kind find them.
pub fn with_card(picture: &[u8], cards: &[(&str, &str)]) -> Result<Vec<u8>, CardError> {
    let mut out = SIGNATURE.to_vec();
    for chunk in chunks(picture)? {
        let chunk = chunk?;
        let is_card = keyword(&chunk).is_some_and(|keyword| {
            KEYWORDS.iter().any(|known| keyword.eq_ignore_ascii_case(known.as_bytes()))
        });
        if !is_card {
            out.extend_from_slice(chunk.whole);
        }
        if chunk.at == SIGNATURE.len() {
            for (keyword, json) in cards {
                let data = [keyword.as_bytes(), b"\0", STANDARD.encode(json).as_bytes()].concat();
                out.extend(text_chunk(&data));
            }
        }
    }
    Ok(out)
}

fn text_chunk(data: &[u8]) -> Vec<u8> {
    let body = [b"tEXt", data].concat();
    let mut crc = Crc::new();
    crc.update(&body);
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc.sum().to_be_bytes()].concat()
}
