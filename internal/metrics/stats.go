package metrics

import (
	"slices"
	"time"
)

// Stats are the middle and the spread of some times. None of its numbers is
// moved far by a few outliers but Min, Max and Mean.
type Stats struct {
	Count    int
	Median   time.Duration
	Min, Max time.Duration
	Mean     time.Duration

	// Quartiles are interpolated linearly between the two times beside them, as R
	// (type 7), NumPy and spreadsheets do by default.
	Quartile1, Quartile3 time.Duration

	// MAD is the median of the distances from the median, not scaled to a
	// standard deviation.
	MAD time.Duration
}

// StatsOf computes them; of no times all are 0.
func StatsOf(times []time.Duration) Stats {
	if len(times) == 0 {
		return Stats{}
	}
	sorted := slices.Sorted(slices.Values(times))
	s := Stats{
		Count: len(sorted), Median: quantile(sorted, 0.5), Min: sorted[0], Max: sorted[len(sorted)-1],
		Quartile1: quantile(sorted, 0.25), Quartile3: quantile(sorted, 0.75),
	}
	mean := 0.0
	distances := make([]time.Duration, len(sorted))
	for i, t := range sorted {
		mean += float64(t) / float64(len(sorted))
		distances[i] = (t - s.Median).Abs()
	}
	s.Mean = min(max(time.Duration(mean), s.Min), s.Max)
	slices.Sort(distances)
	s.MAD = quantile(distances, 0.5)
	return s
}

// quantile interpolates between sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + time.Duration((at-float64(i))*float64(sorted[i+1]-sorted[i]))
}
