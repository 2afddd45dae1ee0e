//! How long a recording lasts, by what its file says of itself.
//!
//! For holds, and for providers that do not tell what they heard. A header is read, nothing is
//! decoded. Invariants: a file that cannot be read lasts as long as its bytes can at the lowest
//! rate in use, so that nothing is held for less than it can come to; and no header makes a file
//! shorter than its bytes are at the highest rate of its format. Sources: the containers' own
//! specifications (RIFF, RFC 9639, RFC 3533, ISO 14496-12, ISO 11172-3).

/// Bytes per second of the thinnest codecs for speech: 8 kbit/s.
const BYTES_PER_SECOND_MIN: u64 = 1_000;

/// Bytes per second at the highest rates in use: 192 kHz in stereo of 32 bits, the same of 24, and
/// what the coders of Ogg (510 kbit/s of Opus) and of the third layer (320 kbit/s) go up to. A
/// film is taken to have no more than sound of 24 bits has: 9 Mbit/s.
const WAV_MAX: u64 = 1_536_000;
const LOSSLESS_MAX: u64 = 1_152_000;
const OGG_MAX: u64 = 64_000;
const MP3_MAX: u64 = 40_000;

/// What a header says, but no less than so many bytes come to at this rate. A header that says
/// nothing stays one.
fn at_least(told: u64, bytes: usize, bytes_per_s: u64) -> u64 {
    if told == 0 { 0 } else { told.max((bytes as u64).div_ceil(bytes_per_s.max(1))) }
}

/// Seconds of sound in a file, rounded up; at least one.
pub(super) fn seconds(file: &[u8]) -> u64 {
    let least = || (file.len() as u64).div_ceil(BYTES_PER_SECOND_MIN);
    measured(file).filter(|seconds| *seconds > 0).unwrap_or_else(least).max(1)
}

fn measured(file: &[u8]) -> Option<u64> {
    match file.get(..4)? {
        b"RIFF" => wav(file),
        b"fLaC" => flac(file),
        b"OggS" => ogg(file),
        _ if file.get(4..8) == Some(b"ftyp") => mp4(file),
        _ => mp3(file),
    }
}

fn le32(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?).into())
}

fn be32(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?).into())
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The bytes that are there, by the rate at which they are played.
fn wav(file: &[u8]) -> Option<u64> {
    let (mut at, mut rate) = (12, None);
    loop {
        let (name, size) = (file.get(at..at + 4)?, le32(file, at + 4)?);
        let start = at + 8;
        match name {
            b"fmt " => {
                let block = u64::from(u16::from_le_bytes(
                    file.get(start + 12..start + 14)?.try_into().ok()?,
                ));
                rate = Some(le32(file, start + 4)?.checked_mul(block)?);
            }
            b"data" => {
                let left = file.len().saturating_sub(start);
                let rate = rate.filter(|rate| *rate > 0)?;
                // A length of nothing is what a recorder writes that cannot go back: to the end.
                let told = if size == 0 { left as u64 } else { size.min(left as u64) };
                return Some(at_least(told.div_ceil(rate), left, rate.clamp(1, WAV_MAX)));
            }
            _ => {}
        }
        at = start
            .checked_add(usize::try_from(size).ok()?)?
            .checked_add(usize::from(size % 2 == 1))?;
    }
}

fn flac(file: &[u8]) -> Option<u64> {
    // 20 bits of rate, 3 of channels, 5 of depth, 36 of samples.
    let packed = be64(file, 18)?;
    let (rate, samples) = (packed >> 44, packed & 0xF_FFFF_FFFF);
    let (channels, bits) = ((packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1);
    // It never takes more than what it packs.
    let most = (rate * channels * bits).div_ceil(8).min(LOSSLESS_MAX);
    let sound = file.len() - flac_head(file).min(file.len());
    (rate > 0).then(|| at_least(samples.div_ceil(rate), sound, most))
}

/// Where the blocks end that stand before the sound; pictures are among them.
fn flac_head(file: &[u8]) -> usize {
    let mut at = 4;
    while let Some(head) = be32(file, at) {
        at += 4 + usize::try_from(head & 0xFF_FFFF).unwrap_or(0);
        if head >> 31 == 1 {
            return at;
        }
    }
    // Without an end to them there is no telling what is sound.
    4
}

/// The position that the last page names.
fn ogg(file: &[u8]) -> Option<u64> {
    let head = file.get(..file.len().min(256))?;
    let has = |sign: &[u8]| head.windows(sign.len()).position(|window| window == sign);
    let rate = match (has(b"OpusHead"), has(b"\x01vorbis")) {
        (Some(_), _) => 48_000,
        (None, Some(at)) => le32(file, at + 12)?,
        (None, None) => return None,
    };
    let last = file.windows(4).rposition(|window| window == b"OggS")?;
    let position = u64::from_le_bytes(file.get(last + 6..last + 14)?.try_into().ok()?);
    let told = (rate > 0 && position < u64::MAX).then(|| position.div_ceil(rate))?;
    Some(at_least(told, file.len(), OGG_MAX))
}

/// What the header of the whole film says.
fn mp4(file: &[u8]) -> Option<u64> {
    let movie = inside(file, b"moov")?;
    let head = inside(movie, b"mvhd")?;
    let (scale, length) = match head.first()? {
        0 => (be32(head, 12)?, be32(head, 16)?),
        _ => (be32(head, 20)?, be64(head, 24)?),
    };
    (scale > 0).then(|| at_least(length.div_ceil(scale), file.len(), LOSSLESS_MAX))
}

/// The content of the first box of a name.
fn inside<'a>(mut rest: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    loop {
        let (mut size, mut start) = (be32(rest, 0)?, 8);
        if size == 1 {
            (size, start) = (be64(rest, 8)?, 16);
        }
        let size = if size == 0 { rest.len() } else { usize::try_from(size).ok()? };
        if rest.get(4..8)? == name {
            return rest.get(start..size.min(rest.len()));
        }
        rest = rest.get(size.max(start)..)?;
    }
}

/// Bit rates of the third layer in kbit/s: of version 1, and of the others.
const RATES: [[u64; 15]; 2] = [
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// The frames that the first one counts, else the bytes by its rate.
fn mp3(file: &[u8]) -> Option<u64> {
    let tag = if file.starts_with(b"ID3") {
        // Four times seven bits.
        let size =
            file.get(6..10)?.iter().fold(0, |size, byte| size << 7 | usize::from(*byte & 127));
        size + 10
    } else {
        0
    };
    let sound = file.get(tag..)?;
    let [first, second, third, ..] = *sound else { return None };
    // A frame's sign, and layer 3.
    if first != 0xFF || second & 0xE6 != 0xE2 {
        return None;
    }
    let is_first_version = second & 0x18 == 0x18;
    let halving = match second & 0x18 {
        0x18 => 0,
        0x10 => 1,
        _ => 2,
    };
    let samples_per_s = *[44_100_u64, 48_000, 32_000].get(usize::from(third >> 2 & 3))? >> halving;
    let kbits = RATES.get(usize::from(!is_first_version))?.get(usize::from(third >> 4)).copied()?;
    let samples = if is_first_version { 1_152 } else { 576 };
    let head = sound.get(..sound.len().min(192))?;
    let counted = [&b"Xing"[..], b"Info"].iter().find_map(|sign| {
        let at = head.windows(4).position(|window| window == *sign)?;
        let has_frames = be32(head, at + 4)? & 1 == 1;
        be32(head, at + 8).filter(|_| has_frames)
    });
    match counted {
        Some(frames) => {
            Some(at_least((frames * samples).div_ceil(samples_per_s), sound.len(), MP3_MAX))
        }
        None if kbits > 0 => Some((sound.len() as u64).div_ceil(kbits * 125)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recorded(seconds: u32) -> Vec<u8> {
        let (rate, block) = (8_000_u32, 2_u16);
        let size = seconds * rate * u32::from(block);
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        file.extend(rate.to_le_bytes());
        file.extend((rate * u32::from(block)).to_le_bytes());
        file.extend(block.to_le_bytes());
        file.extend(16_u16.to_le_bytes());
        file.extend(b"data");
        file.extend(size.to_le_bytes());
        file.resize(file.len() + size as usize, 0);
        file
    }

    #[test]
    fn a_recording_lasts_as_long_as_its_samples() {
        assert_eq!(seconds(&recorded(3)), 3);
        // A header that lies about its length does not make it shorter than what is there.
        let mut file = recorded(3);
        file.truncate(file.len() - 1);
        assert_eq!(seconds(&file), 3);
    }

    #[test]
    fn compressed_files_say_how_long_they_last() {
        let mut flac = b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
        flac.extend(((16_000_u64 << 44) | (1 << 41) | (15 << 36) | 0x9C41).to_be_bytes());
        assert_eq!(seconds(&flac), 3);
        let mut ogg = b"OggS\0\x02\0\0\0\0\0\0\0\0....OpusHead".to_vec();
        ogg.extend(b"OggS\0\x04");
        ogg.extend(96_000_u64.to_le_bytes());
        assert_eq!(seconds(&ogg), 2);
        let mut mp4 = b"\0\0\0\x10ftypM4A \0\0\0\0\0\0\0\x24moov\0\0\0\x1Cmvhd".to_vec();
        mp4.extend([0; 12]);
        mp4.extend(1_000_u32.to_be_bytes());
        mp4.extend(4_200_u32.to_be_bytes());
        assert_eq!(seconds(&mp4), 5);
        // 128 kbit/s, 44,100 Hz.
        let mut mp3 = b"ID3\x04\0\0\0\0\0\x02zz\xFF\xFB\x90\0".to_vec();
        mp3.resize(12 + 32_000, 0);
        assert_eq!(seconds(&mp3), 2);
    }

    #[test]
    fn a_header_makes_no_file_shorter_than_its_bytes_can_be() {
        const SIZE: usize = 25_000_000;
        let filled = |mut head: Vec<u8>| {
            head.resize(head.len() + SIZE, 0);
            seconds(&head)
        };
        // One frame, 128 kbit/s and 44,100 Hz.
        let mut xing = b"\xFF\xFB\x90\0".to_vec();
        xing.resize(36, 0);
        xing.extend(b"Xing\0\0\0\x01\0\0\0\x01");
        assert_eq!(filled(xing), 626);
        // One sample, 16 kHz and 16 bits; a picture before the sound is none of it.
        let info = |samples: u64| {
            let mut flac = b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
            flac.extend(((16_000_u64 << 44) | (15 << 36) | samples).to_be_bytes());
            flac.extend([0; 16]);
            flac
        };
        let mut lies = info(1);
        lies.extend(b"\x84\0\0\0");
        assert_eq!(filled(lies), 782);
        let mut pictured = info(32_000);
        pictured.extend(b"\x86\x7F\0\0");
        pictured.resize(pictured.len() + 0x7F_0000 + 1_000, 0);
        assert_eq!(seconds(&pictured), 2);
        let mut mp4 = b"\0\0\0\x10ftypM4A \0\0\0\0\0\0\0\x24moov\0\0\0\x1Cmvhd".to_vec();
        mp4.extend([0; 12]);
        mp4.extend([1_000_u32.to_be_bytes(), 1_u32.to_be_bytes()].concat());
        mp4.extend([0; 4]);
        assert_eq!(filled(mp4), 22);
        // The last page names the first sample.
        let mut ogg = b"OggS\0\x02\0\0\0\0\0\0\0\0....OpusHead".to_vec();
        ogg.resize(SIZE, 0);
        ogg.extend(b"OggS\0\x04");
        ogg.extend(1_u64.to_le_bytes());
        assert_eq!(seconds(&ogg), 391);
        // A wave whose recorder could not go back, and one that says less than there is.
        for told in [0_u32, 1] {
            let mut wav = recorded(3);
            wav[40..44].copy_from_slice(&told.to_le_bytes());
            assert_eq!(seconds(&wav), 3, "{told}");
        }
    }

    #[test]
    fn what_cannot_be_read_lasts_as_long_as_it_can() {
        assert_eq!((seconds(&[7; 4_500]), seconds(b"")), (5, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..5_usize,
        ) {
            let sign = [&b"RIFF"[..], b"fLaC", b"OggS", b"\0\0\0\0ftyp", b"\xFF\xFB"][kind];
            for (at, byte) in sign.iter().enumerate().take(bytes.len()) {
                bytes[at] = *byte;
            }
            prop_assert!(seconds(&bytes) >= 1);
        }
    }
}
