// Means and variances from parts.

// Of some elements: their number, their mean, and the sum of the squares of their differences to it. Where the mean counts
// as 0, it is 0 here.
struct Moments {
    count: f32,
    mean: f32,
    squares: f32,
}

// Those of two parts together (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
// variances", 1979).
fn together(a: Moments, b: Moments) -> Moments {
    let count = a.count + b.count;
    let apart = b.mean - a.mean;
    let share = b.count / max(count, 1.0);
    return Moments(count, a.mean + apart * share, a.squares + b.squares + apart * apart * (a.count * share));
}
