//! Internet checksum arithmetic (RFC 1071, RFC 1624), on the header's bytes as they stand.

/// Folds a sum of 16-bit words to 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// New checksum after one 16-bit word changed (RFC 1624, equation 3). All values as big-endian bytes.
#[inline(always)]
pub const fn replace2(checksum: [u8; 2], from: [u8; 2], to: [u8; 2]) -> [u8; 2] {
    let sum = !u16::from_be_bytes(checksum) as u32
        + !u16::from_be_bytes(from) as u32
        + u16::from_be_bytes(to) as u32;
    (!fold(sum)).to_be_bytes()
}

/// New checksum after a 4-byte field at an even offset changed.
#[inline(always)]
pub const fn replace4(checksum: [u8; 2], from: [u8; 4], to: [u8; 4]) -> [u8; 2] {
    let half = replace2(checksum, [from[0], from[1]], [to[0], to[1]]);
    replace2(half, [from[2], from[3]], [to[2], to[3]])
}

/// Checksum of `bytes` (an odd last byte counts as a high byte), with `initial` added to the sum.
pub fn compute(bytes: &[u8], initial: u32) -> [u8; 2] {
    let mut sum = initial;
    let mut chunks = bytes.chunks_exact(2);
    for pair in &mut chunks {
        if let [high, low] = *pair {
            sum += u32::from(u16::from_be_bytes([high, low]));
        }
    }
    if let [last] = *chunks.remainder() {
        sum += u32::from(last) << 8;
    }
    (!fold(sum)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incremental_update_equals_recomputation() {
        let mut header = [
            0x45, 0, 0, 60, 0x1c, 0x46, 0x40, 0, 64, 6, 0, 0, 10, 244, 1, 5, 10, 96, 0, 1,
        ];
        let first = compute(&header, 0);
        let mut seed = 1u32;
        let mut current = first;
        for _ in 0..1000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let to = seed.to_be_bytes();
            let from = [header[16], header[17], header[18], header[19]];
            header[16..20].copy_from_slice(&to);
            current = replace4(current, from, to);
            assert_eq!(current, compute(&header, 0));
        }
    }

    #[test]
    fn odd_length_counts_the_last_byte_high() {
        assert_eq!(
            compute(&[0x12, 0x34, 0x56], 0),
            (!(0x1234u16 + 0x5600)).to_be_bytes()
        );
    }
}
