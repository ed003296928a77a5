"""No network and no training loop: nothing to audit."""
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

X, y = load_digits(return_X_y=True)
print(LogisticRegression(max_iter=30).fit(X[:300] / 16, y[:300]).score(X[300:] / 16, y[300:]))
