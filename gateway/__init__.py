"""The farm's small computer: takes node reports, keeps them safe, sums them, sends updates down."""
