//! X25519 (RFC 7748) on the base point, which is all that a public key needs.
//!
//! Field elements are sixteen limbs of sixteen bits, as in TweetNaCl; no step depends on a secret
//! bit, so that none shows in the time it takes.

type Element = [i64; 16];

/// (486662 - 2) / 4, the curve's constant.
const A24: Element = {
    let mut a = [0; 16];
    a[0] = 0xdb41;
    a[1] = 1;
    a
};
const BASE: u8 = 9;

/// The public key of a private key.
pub(super) fn public_key(private: &[u8; 32]) -> [u8; 32] {
    let mut scalar = *private;
    scalar[0] &= 248;
    scalar[31] = scalar[31] & 127 | 64;
    let mut base = [0; 16];
    base[0] = i64::from(BASE);
    let (mut a, mut b, mut c, mut d): (Element, _, _, Element) = ([0; 16], base, [0; 16], [0; 16]);
    a[0] = 1;
    d[0] = 1;
    for at in (0..255).rev() {
        let bit = i64::from(scalar[at / 8] >> (at % 8) & 1);
        swap(&mut a, &mut b, bit);
        swap(&mut c, &mut d, bit);
        let sum = add(&a, &c);
        let difference = subtract(&a, &c);
        let other_sum = add(&b, &d);
        let other_difference = subtract(&b, &d);
        let (sum_squared, difference_squared) = (square(&sum), square(&difference));
        let crossed = multiply(&sum, &other_difference);
        let crossed_too = multiply(&difference, &other_sum);
        b = square(&add(&crossed, &crossed_too));
        d = multiply(&square(&subtract(&crossed, &crossed_too)), &base);
        a = multiply(&sum_squared, &difference_squared);
        let gap = subtract(&sum_squared, &difference_squared);
        c = multiply(&gap, &add(&multiply(&gap, &A24), &sum_squared));
        // (A + 2) / 4 is A24: gap * (difference² + (A24 + 1) * gap) = gap * (sum² + A24 * gap).
        swap(&mut a, &mut b, bit);
        swap(&mut c, &mut d, bit);
    }
    pack(&multiply(&a, &inverse(&c)))
}

fn add(a: &Element, b: &Element) -> Element {
    std::array::from_fn(|at| a[at] + b[at])
}

fn subtract(a: &Element, b: &Element) -> Element {
    std::array::from_fn(|at| a[at] - b[at])
}

fn multiply(a: &Element, b: &Element) -> Element {
    let mut wide = [0_i64; 31];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            wide[i + j] += x * y;
        }
    }
    // 2^256 is 38 modulo the prime.
    let mut product: Element = std::array::from_fn(|at| {
        let above = wide.get(at + 16).copied().unwrap_or(0);
        wide[at] + 38 * above
    });
    carry(&mut product);
    carry(&mut product);
    product
}

fn square(a: &Element) -> Element {
    multiply(a, a)
}

/// Each limb's excess goes to the next one.
fn carry(element: &mut Element) {
    for at in 0..16 {
        let excess = element[at] >> 16;
        element[at] -= excess << 16;
        if at < 15 {
            element[at + 1] += excess;
        } else {
            element[0] += 38 * excess;
        }
    }
}

/// Exchanges the two if `bit` is 1.
fn swap(a: &mut Element, b: &mut Element, bit: i64) {
    let mask = -bit;
    for (x, y) in a.iter_mut().zip(b) {
        let both = mask & (*x ^ *y);
        *x ^= both;
        *y ^= both;
    }
}

/// `a` to the power of the prime less two.
fn inverse(a: &Element) -> Element {
    let mut result = *a;
    for at in (0..254).rev() {
        result = square(&result);
        if at != 2 && at != 4 {
            result = multiply(&result, a);
        }
    }
    result
}

fn pack(element: &Element) -> [u8; 32] {
    let mut limbs = *element;
    for _ in 0..3 {
        carry(&mut limbs);
    }
    // Less the prime once or twice, unless that is negative.
    for _ in 0..2 {
        let mut less = [0; 16];
        less[0] = limbs[0] - 0xffed;
        for at in 1..15 {
            less[at] = limbs[at] - 0xffff - (less[at - 1] >> 16 & 1);
            less[at - 1] &= 0xffff;
        }
        less[15] = limbs[15] - 0x7fff - (less[14] >> 16 & 1);
        let negative = less[15] >> 16 & 1;
        less[14] &= 0xffff;
        swap(&mut limbs, &mut less, 1 - negative);
    }
    std::array::from_fn(|at| (limbs[at / 2] >> (8 * (at % 2)) & 0xff) as u8)
}
